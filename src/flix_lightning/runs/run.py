"""One run: its settings, its identity, and what lies in its folder."""

import csv
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from flix_lightning.adapter.features import FeatureDropout, FeatureSpace, resolve_lora_rank, resolve_ranks
from flix_lightning.common import settings
from flix_lightning.common.errors import UserError, one_line
from flix_lightning.common.names import check_name, text_keys
from flix_lightning.common.settings import plain
from flix_lightning.data.archive import open_layout
from flix_lightning.data.attributes import Attribute, parse_attributes
from flix_lightning.data.layout import Layout
from flix_lightning.data.mixture import Dataset, Mixture, NothingThere, list_all
from flix_lightning.data.mixture_config import SHARED
from flix_lightning.data.tokenization import DECODER_ONLY_SEPARATOR, Tokenization
from flix_lightning.models import base as models
from flix_lightning.models import vocabulary
from flix_lightning.models.base import Base
from flix_lightning.runs import rows as results
from flix_lightning.runs.checkpoints import Checkpoint
from flix_lightning.runs.identity import run_id
from flix_lightning.runs.lock import lock_folder
from flix_lightning.runs.predictions import Prediction, read_predictions
from flix_lightning.runs.rows import Row
from flix_lightning.runs.settings import SETTINGS, make_value
from flix_lightning.runs.start import Start
from flix_lightning.tasks.definitions import Tasks
from flix_lightning.tasks.metrics import get_metric

log = logging.getLogger(__name__)

#: Settings that the config of every finished run has. Other settings are newer than some runs.
_IN_EVERY_CONFIG = ("seed", "data.name", "flix.name", "model.pretrained", "model.revision", "model.dtype")


class Run:
    """One run, before, during and after its training.

    `Run.resolve` makes it from a composed config, `Run.open` from the folder of a finished run. Data, base
    model and files are read when they are first needed.

    Attributes:
        path: the run's folder, `<output>/runs/<method>-<mixture>-seed<seed>-<id>`. It may have been moved.
        id: the hash of all that decides the run's result, 10 hexadecimal digits.
        config: the file of the resolved config, YAML.
        checkpoints: the folder of adapter checkpoints.
        metrics: the folder of the CSV logger, with one sub-folder for each start of the run.
        results: the file of result rows, written last.
    """

    def __init__(self, cfg: DictConfig, path: str | Path):
        self.cfg, self.path = cfg, Path(path)
        self.id = self.path.name.rpartition("-")[2]
        self._scored: dict[Row, tuple[NDArray[np.float64], tuple[str, ...]]] = {}

    @classmethod
    def resolve(cls, cfg: DictConfig) -> "Run":
        """Check a composed config against its data and its base model, and compute the run's identity.

        Raises:
            UserError: a setting, a rank or a kind is wrong, or data or a base is missing.
        """
        settings.check(cfg, SETTINGS)
        run = cls(cfg, cfg.output)
        cfg.mixture.update(list_all(cfg.mixture, run.layout))
        FeatureSpace(run.ranks), FeatureDropout(cfg.seed, plain(cfg.flix.dropout))
        _check_kinds(cfg, run.kinds)
        run.id = run_id(run)
        run._keep_tasks()
        name = f"{run.method.lower()}-{run.mixture.name}-seed{cfg.seed}-{run.id}"
        run.path = Path(cfg.output) / "runs" / name
        return run

    @classmethod
    def open(cls, path: str | Path, output: str | None = None) -> "Run":
        """Open the folder of a finished run.

        `output` is the folder of caches and of unpacked data; None is the one that the run was trained with.

        Raises:
            UserError: the folder holds no finished run, or one whose files are not as they were written.
        """
        run = cls(OmegaConf.create(), path)
        if not run.finished:
            raise UserError(f"run={path}: no finished run; a folder with results.jsonl in it is needed")
        run.cfg, run.id = read_config(run.config), run.rows[0].run
        if output:
            run.cfg.output = output
        return run

    # -- what it is

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.name

    @property
    def method(self) -> str:
        """Name of the method, as in tables."""
        return self.cfg.flix.name

    @cached_property
    def tasks(self) -> Tasks:
        """The tasks, and the names of languages in prompts."""
        own, names = (plain(OmegaConf.select(self.cfg, key)) for key in ("tasks", "data.languages"))
        return Tasks.of(own, names)

    @cached_property
    def layout(self) -> Layout:
        """The data."""
        return open_layout(make_value(self.cfg.data.root), Path(self.cfg.output) / "data", self.tasks)

    @cached_property
    def mixture(self) -> Mixture:
        """The datasets that the run trains on and evaluates."""
        return Mixture.resolve(self.cfg.mixture, self.layout, self.cfg.data.allow_missing)

    @cached_property
    def attributes(self) -> list[Attribute]:
        """Kinds that follow from others in the mixture; known without the data."""
        return parse_attributes(plain(OmegaConf.select(self.cfg, "mixture.attributes")))

    @cached_property
    def pretrained(self) -> str:
        """The base model, as `flix_lightning.models.base.load` takes it."""
        return str(make_value(self.cfg.model.pretrained))

    @property
    def chat_template(self) -> bool:
        """Whether inputs stand in the base's chat template; configs of older runs do not say so."""
        return self.cfg.model.get("chat_template", False)

    @cached_property
    def start(self) -> Start | None:
        """The earlier run that training starts from, if any."""
        cfg = self.cfg.start
        if cfg.run is None:
            return None
        earlier = Run(OmegaConf.create(), cfg.run)
        names = earlier.checkpoint_names()
        if not names or not earlier.config.exists():
            raise UserError(
                f"start.run={earlier.path}: no run; a folder with config.yaml and checkpoints/ is needed"
            )
        if cfg.checkpoint not in names:
            raise UserError(
                f"start.run={earlier.path} has no checkpoint {cfg.checkpoint}; start.checkpoint= is one of "
                + ", ".join(names)
            )
        earlier.cfg, own = read_config(earlier.config), self.cfg.model.revision
        theirs = earlier.cfg.model.revision
        if models.fingerprint(earlier.pretrained, theirs) != models.fingerprint(self.pretrained, own):
            raise UserError(
                f"start.run={earlier.path} was trained on model.pretrained={earlier.pretrained}, this run on "
                f"{self.pretrained}"
            )
        return Start(earlier.path, earlier.checkpoint(cfg.checkpoint), cfg.train)

    @cached_property
    def own_ranks(self) -> dict[str, int]:
        """ "kind:name" -> rank of every feature of the method on the datasets that are trained.

        FLix's table of ranks is `mixture.ranks` with `flix.ranks` over it. Every method starts from this
        table: a LoRA is one feature whose rank is worked out from it.
        """
        table = text_keys("flix.ranks", plain(self.cfg.flix.ranks))
        table = {**text_keys("mixture.ranks", self.mixture.ranks), **table}
        trained = self.mixture.trained_attributes(self.layout, table)
        ranks = resolve_ranks(table, trained)
        if self.cfg.flix.lora_rank is None:
            return ranks
        return {f"shared:{SHARED}": resolve_lora_rank(self.cfg.flix.lora_rank, ranks, trained)}

    @property
    def kinds(self) -> list[str]:
        """Kinds of the method's features."""
        return list(dict.fromkeys(feature.partition(":")[0] for feature in self.own_ranks))

    @cached_property
    def ranks(self) -> dict[str, int]:
        """The ranks of the method's features, and of those that the run starts with."""
        return self.start.add_to(self.own_ranks) if self.start else self.own_ranks

    def _keep_tasks(self) -> None:
        """Replace the files of the mixture's own tasks by their definitions, in the config."""
        used = {one.task for one in (*self.mixture.train, *self.mixture.evaluate)}
        own = [name for name in self.cfg.get("tasks") or {} if name in used]
        with open_dict(self.cfg):
            self.cfg.tasks = {name: self.tasks.get(name).definition() for name in own}

    # -- its folder

    @property
    def config(self) -> Path:  # noqa: D102
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:  # noqa: D102
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:  # noqa: D102
        return self.path / "metrics"

    @property
    def results(self) -> Path:  # noqa: D102
        return self.path / "results.jsonl"

    @property
    def finished(self) -> bool:
        """Whether the run has its results, with all scores asked for; raises UserError if unreadable."""
        if not self.results.exists():
            return False
        asked = {"validation", "test"} if OmegaConf.select(self.cfg, "evaluation.test") else {"validation"}
        return asked <= {row.split for row in results.read(self.results)}

    def lock(self) -> AbstractContextManager[None]:
        """Hold the run alone; see `lock_folder`."""
        return lock_folder(self.path)

    # -- its checkpoints

    def checkpoint_path(self, name: str) -> Path:
        """File of a checkpoint: `last`, or `best-<selection>`."""
        return self.checkpoints / f"{name}.ckpt"

    def checkpoint_names(self) -> list[str]:
        """Names of the checkpoints that are there."""
        return sorted(path.stem for path in self.checkpoints.glob("*.ckpt"))

    def checkpoint(self, name: str) -> Checkpoint:
        """Read a checkpoint; raises UserError as `Checkpoint.read` does."""
        return Checkpoint.read(self.checkpoint_path(name))

    def selection(self, task: str) -> str:
        """Name the checkpoint that tests `task`: `best-<task>`, or `best-average`.

        A task has a checkpoint of its own where `evaluation.selection` says so and validation covers it.
        """
        own = self.cfg.evaluation.selection == "task" and task in self._validated
        return f"best-{task if own else 'average'}"

    @cached_property
    def _validated(self) -> set[str]:
        if self.finished:  # the data may be gone
            return {row.task for row in self.rows if row.split == "validation"}
        return {dataset.task for dataset in self.mixture.datasets("validation").values()}

    def select_checkpoint(self, asked: str | None, tasks: Collection[str]) -> str:
        """Return the name of the checkpoint to use: `asked`, or, if the user asks for none, one for `tasks`.

        That is the one that tested the first of `tasks` that has one, or `last` where none was selected for
        them, which is logged. Raises UserError, naming those that are there, if there is no such checkpoint.
        """
        names = self.checkpoint_names()
        if asked is None:
            selected = (name for task in tasks if (name := self.selection(task)) in names)
            asked = next(selected, None)
            if asked is None:
                asked = "last"
                if tasks:
                    log.warning("no checkpoint was selected for %s, so the last is taken", ", ".join(tasks))
        if asked not in names:
            raise UserError(f"{self.checkpoints} has no {asked}; checkpoint= is one of {', '.join(names)}")
        return asked

    def selectable_checkpoints(self, asked: str | None) -> list[str]:
        """Return every name that `select_checkpoint` may return; raises UserError as it does."""
        best = [name for name in self.checkpoint_names() if name.startswith("best-")] if asked is None else []
        return list(dict.fromkeys([*best, self.select_checkpoint(asked, [])]))

    def load_base(self, *, whole_vocabulary: bool = False) -> Base:
        """Load the base model; raises UserError as `flix_lightning.models.base.load` does.

        `whole_vocabulary` ignores `model.vocabulary=data`: new texts have tokens that the data lacks.
        """
        model, pretrained = self.cfg.model, self.pretrained
        if model.vocabulary != "all" and whole_vocabulary:
            log.warning("the run had model.vocabulary=data, and here it is all: answers may differ")
        elif model.vocabulary != "all":
            texts = chain([DECODER_ONLY_SEPARATOR], self.mixture.texts(self.layout))
            texts_id = self.mixture.fingerprint(self.layout)
            root = Path(self.cfg.output) / "models"
            cut = vocabulary.cut(
                pretrained, model.revision, model.dtype, texts, texts_id, root, self.chat_template
            )
            pretrained = str(cut)
        return models.load(pretrained, model.revision, model.dtype, self.chat_template)

    def tokenization(self, base: Base) -> Tokenization:
        """Return how the run's texts become token ids; raises UserError as `Tokenization` does."""
        data = self.cfg.data
        lengths = data.max_input_length, data.max_target_length
        return Tokenization(base.tokenizer, base.is_encoder_decoder, *lengths, self.chat_template)

    # -- what it wrote

    @cached_property
    def rows(self) -> list[Row]:
        """The results of a finished run; raises UserError as `flix_lightning.runs.rows.read` does."""
        return results.read(self.results)

    def row(self, dataset: Dataset | None, **fields: Any) -> Row:
        """Make a result row: a score on a dataset, or a run-level fact without one; see `Row`."""
        names = ("task", "language", "seen")
        place = {name: getattr(dataset, name) if dataset else None for name in names}
        own = {"run": self.id, "method": self.method, "mixture": self.cfg.mixture.name, "seed": self.cfg.seed}
        return Row(**own, **place, **fields)

    @property
    def facts(self) -> dict[str, float]:
        """Run-level facts of a finished run, by metric; see `Row`."""
        return {row.metric: row.value for row in self.rows if row.split == "train"}

    def validation_scores(self) -> dict[str, float]:
        """Task -> its validation score, a macro average over languages, of the checkpoint that tests it.

        Raises UserError if the run has none.
        """
        by_step = results.validations(self.rows)
        if not by_step:
            raise UserError(f"{self.path} has no validation scores; leave trainer.limit_val_batches out")
        best = {f"best-{task}": max(by_step.values(), key=lambda at: at[task]) for task in self._validated}
        best["best-average"] = max(by_step.values(), key=lambda at: fmean(at.values()))
        return {task: best[self.selection(task)][task] for task in sorted(self._validated)}

    def predictions_path(self, evaluation: str, task: str, language: str) -> Path:
        """File of one dataset's predictions; `evaluation` is as `validation-200` or `test-all`."""
        return self.path / "predictions" / evaluation / task / f"{language}.jsonl"

    def predictions_file(self, row: Row) -> Path:
        """File of the predictions behind a test row."""
        return self.predictions_path(f"{row.split}-{row.active}", row.task, row.language)

    def predictions(self, row: Row) -> list[Prediction]:
        """Read the predictions behind a test row; raises UserError as `read_predictions` does."""
        return read_predictions(self.predictions_file(row))

    def counts(self, row: Row) -> NDArray[np.float64]:
        """Return what each example of a test row adds to the sums of its metric, `[examples, sums]`."""
        return self._score(row)[0]

    def targets(self, row: Row) -> tuple[str, ...]:
        """Return the targets of a test row's examples, in the order of `counts`."""
        return self._score(row)[1]

    def _score(self, row: Row) -> tuple[NDArray[np.float64], tuple[str, ...]]:
        if row not in self._scored:  # FLix's are compared with those of every baseline
            _, texts, targets = zip(*self.predictions(row), strict=True)
            self._scored[row] = get_metric(row.metric).counts(texts, targets), targets
        return self._scored[row]

    def logged(self, name: str) -> list[tuple[int, float]]:
        """Read the values that the CSV logger got under a name: (optimizer step, value), by step.

        If a resumed run logged a step again, the later value counts. Without any value, the list is empty.

        Raises:
            UserError: a file cannot be read, or is not the logger's.
        """
        points: dict[int, float] = {}
        files = [
            path
            for path in self.metrics.glob("version_*/metrics.csv")
            if path.parent.name.removeprefix("version_").isdecimal()
        ]
        for path in sorted(files, key=lambda path: int(path.parent.name.removeprefix("version_"))):
            try:
                with path.open(encoding="utf-8", newline="") as file:
                    lines = [line for line in csv.DictReader(file) if line.get(name)]
                # Older runs, whose files have a column `epoch`, counted steps from 0.
                points |= {int(line["step"]) + ("epoch" in line): float(line[name]) for line in lines}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UserError(f"cannot read {path}: {error!r}; delete it to go on without") from error
        return sorted(points.items())


def resolve_all(cfgs: Iterable[DictConfig]) -> tuple[list[Run], list[str]]:
    """Resolve the runs of a sweep, and name the mixtures that the data holds nothing of.

    Only a run with `data.allow_missing=true` can be left out. Raises UserError as `Run.resolve`.
    """
    runs, left_out = [], {}
    for cfg in cfgs:
        try:
            runs.append(Run.resolve(cfg))
        except NothingThere:
            left_out[cfg.mixture.name] = None
    return runs, list(left_out)


def left_out_note(left_out: Collection[str]) -> tuple[str, ...]:
    """Say in one line which mixtures `resolve_all` left out; no line where there are none."""
    return (f"The data holds nothing of, so left out: {', '.join(left_out)}.",) if left_out else ()


def read_config(path: Path) -> DictConfig:
    """Read a run's resolved config as plain values: nothing in it is looked up or called.

    Raises:
        UserError: the file cannot be read, or is no config, naming the key. `${…}` could read secrets.
    """
    try:
        text = path.read_text(encoding="utf-8")
        cfg = OmegaConf.create(text)
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException, AssertionError) as error:
        reason = one_line(error)
        raise UserError(f"{path}: no config of a run ({reason}); one that the run wrote is needed") from error
    if not OmegaConf.is_dict(cfg) or "${" in text:
        raise UserError(f"{path}: no config of a run, which is a mapping of plain values, without ${{…}}")
    for key, declared in SETTINGS.items():
        value = plain(OmegaConf.select(cfg, key))
        if isinstance(declared, settings.Setting) and (value is not None or key in _IN_EVERY_CONFIG):
            declared.kind.require(f"{path}: {key}", value)
    settings.NAME.require(f"{path}: mixture.name", OmegaConf.select(cfg, "mixture.name"))
    for name, task in (plain(cfg.get("tasks")) or {}).items():
        settings.MAPPING.require(f"{path}: tasks.{name}", task)  # a path would be read, with what it looks up
    return cfg


def _check_kinds(cfg: DictConfig, known: Collection[str]) -> None:
    """Raise UserError for an unknown kind, which would be ignored, or for a repeated control."""
    rates, controls = plain(cfg.flix.dropout), plain(cfg.flix.controls)
    ratios = plain(cfg.flix.learning_rate_ratios) or {}
    named = {
        "flix.learning_rate_ratios": text_keys("flix.learning_rate_ratios", ratios),
        "flix.dropout": text_keys("flix.dropout", rates) if isinstance(rates, Mapping) else [],
        "flix.controls": [check_name("flix.controls", kind) for control in controls for kind in control],
    }
    for key, kinds in named.items():
        if unknown := [kind for kind in kinds if kind not in known]:
            raise UserError(f"{key} names the kind {unknown[0]!r}; this run has {', '.join(known)}")
    if twice := [one for one, count in Counter(map(frozenset, controls)).items() if count > 1]:
        raise UserError(f"flix.controls names {sorted(twice[0])} more than once; once is enough")
