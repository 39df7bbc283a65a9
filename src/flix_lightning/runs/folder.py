"""What a run is called, where it lives, and who is working on it."""

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from flix_lightning.common import settings
from flix_lightning.common.errors import UserError
from flix_lightning.common.files import remove_temporary_files, write_atomic

_PREDICTION = ("id", "prediction", "target")

#: What is taken from a run's config, and what it may be.
_TAKEN = {
    "model.pretrained": settings.PATH_OR_CALL,
    "model.revision": settings.TEXT,
    "model.dtype": settings.TEXT,
    "flix.name": settings.NAME,
    "mixture.name": settings.NAME,
    "data.name": settings.NAME,
    "seed": settings.integer(0),
}


class RunBusy(UserError):  # noqa: N818 - a state of the run, not a fault
    """Another process is working on this run."""


def run_id(config: Mapping[str, Any]) -> str:
    """Hash what decides a run's result into 10 hexadecimal digits.

    `config` is plain data (mappings, lists, strings, numbers, booleans, None): the resolved config and the
    fingerprints of data, base and results' schema, and nothing that leaves the result as it is. The order of
    keys does not matter, and 0 and 0.0 are one number.

    Raises:
        TypeError: a value that JSON cannot hold.
    """
    canonical = json.dumps(_one_number(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def _one_number(value: Any) -> Any:
    """A dropout of 0, as YAML has it, and of 0.0, as a command line has it, must not be two runs."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case Mapping():
            return {key: _one_number(item) for key, item in value.items()}
        case list() | tuple():
            return [_one_number(item) for item in value]
        case _:
            return value


class RunFolder:
    """The folder `<name>-<id>` of one run.

    Attributes:
        path: the folder.
        id: the run's hash (`run_id`), by the folder's name.
        config: its resolved config, YAML.
        checkpoints: folder of adapter checkpoints.
        metrics: folder of the CSV logger, one sub-folder for each time the run was started.
        results: the rows of `flix_lightning.runs.rows`, written last.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.id = self.path.name.rpartition("-")[2]
        self.config = self.path / "config.yaml"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics"
        self.results = self.path / "results.jsonl"

    def checkpoint(self, name: str) -> Path:
        """Where the checkpoint of that name is kept: `last`, or `best-<selection>` as `best` gives it."""
        return self.checkpoints / f"{name}.ckpt"

    def best(self, selection: str) -> Path:
        """Where the best checkpoint of a selection is kept: of a task, or of their `average`."""
        return self.checkpoint(f"best-{selection}")

    @property
    def last(self) -> Path:
        """Where the checkpoint of the last step is kept."""
        return self.checkpoint("last")

    def predictions(self, evaluation: str, task: str, language: str) -> Path:
        """Where one dataset's predictions are kept; `evaluation` is as `validation-200` or `test-all`."""
        return self.path / "predictions" / evaluation / task / f"{language}.jsonl"

    @property
    def finished(self) -> bool:
        """Whether the run has its results, which are written whole and last."""
        return self.results.exists()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run alone, and clear away what a killed process left half-written.

        The system releases the lock when the process dies, however it dies: a network's file system once it
        knows that the machine is gone (NFS 4 by its lease).

        Raises:
            RunBusy: it is held already.
            UserError: the folder cannot be made, or has no locks.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the run's folder {self.path}: {error.strerror or error}") from error
        lock = FileLock(self.path / ".lock", blocking=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunBusy(
                f"{self.path}: another process is working on this run; wait for it, or end it"
            ) from error
        except (OSError, NotImplementedError) as error:
            raise UserError(
                f"cannot lock {self.path / '.lock'} ({error}); give output=FOLDER on a file system with locks"
            ) from error
        try:
            remove_temporary_files(self.path)
            yield
        finally:
            lock.release()


def read_config(path: Path) -> DictConfig:
    """Read a run's resolved config as plain values: nothing in it is looked up or called.

    Raises:
        UserError: it cannot be read, or is none, naming the key; `${…}` could read what is secret here.
    """
    try:
        text = path.read_text(encoding="utf-8")
        cfg = OmegaConf.create(text)
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: no config of a run ({reason}); one that the run wrote is needed") from error
    if not OmegaConf.is_dict(cfg) or "${" in text:
        raise UserError(f"{path}: no config of a run, which is a mapping of plain values, without ${{…}}")
    for key, kind in _TAKEN.items():
        kind.require(f"{path}: {key}", OmegaConf.select(cfg, key))
    return cfg


def logged(folder: RunFolder, name: str) -> list[tuple[int, float]]:
    """What the CSV logger was given as `name`: (optimiser step, value), by step; empty where it has none.

    What a run logged again once it was resumed counts.

    Raises:
        UserError: a file cannot be read, or is none of the logger's.
    """
    points: dict[int, float] = {}
    files = folder.metrics.glob("version_*/metrics.csv")
    for path in sorted(files, key=lambda path: int(path.parent.name.removeprefix("version_"))):
        try:
            with path.open(encoding="utf-8", newline="") as file:
                lines = [line for line in csv.DictReader(file) if line.get(name)]
            points |= {int(line["step"]) + 1: float(line[name]) for line in lines}  # it counts from 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"cannot read {path}: {error!r}; delete it to go on without") from error
    return sorted(points.items())


def read_predictions(path: Path) -> list[dict[str, str]]:
    """Read what `write_predictions` wrote.

    Raises:
        UserError: the file cannot be read, or is none of predictions.
    """
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
        return [{key: line[key] for key in _PREDICTION} for line in lines]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read predictions {path}: {error!r}; do the run again") from error


def write_predictions(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write one dataset's predictions as JSON lines of (id, prediction, target), whole or not at all.

    Raises:
        UserError: the file cannot be written; an earlier one is then untouched.
    """
    lines = (json.dumps({key: row[key] for key in _PREDICTION}, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(path, "".join(lines))
