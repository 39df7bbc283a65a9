"""Answer a file of lines into a file of predictions, in memory that does not grow with the files."""

import json
import logging
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from flix_lightning.common import settings
from flix_lightning.common.append_file import AppendFile, open_append_file
from flix_lightning.common.errors import UserError
from flix_lightning.common.files import sha256
from flix_lightning.data.jsonl import read_objects
from flix_lightning.inference.predictor import Predictor, lead_processes, windows
from flix_lightning.inference.processes import Processes
from flix_lightning.inference.requests import Request, log_unused
from flix_lightning.inference.settings import GENERATION, RUN
from flix_lightning.runs.run import Run

log = logging.getLogger(__name__)

#: What each setting of `conf/predict.yaml` may be.
SETTINGS = {
    **RUN,
    **GENERATION,
    "input": settings.TEXT,
    "out": settings.nullable(settings.TEXT),
    "explain": settings.BOOLEAN,
}


def predict(cfg: DictConfig) -> Path:
    """Do what `conf/predict.yaml` asks for, or the rest of it.

    Each line of the input gives one line of the output, in its order: `{"prediction": …}`, and with `explain`
    also what the model read of it. Memory holds one window of lines.

    Returns:
        The file of predictions.

    Raises:
        UserError: a value is out of its choices; or as `read_objects`, `RequestReader.from_line`,
            `Predictor` and `open_append_file`.
        OSError: the predictions cannot be written. Those that are written stay, and another call goes on.
        SystemExit: on Ctrl-C, with a line that says so.
    """
    with lead_processes(cfg, "predict.py") as processes:
        settings.check(cfg, SETTINGS)
        return _predict(cfg, processes)


def _predict(cfg: DictConfig, processes: Processes) -> Path:
    with _readable_twice(cfg) as source:
        if source.is_dir():
            raise UserError(f"input={cfg.input} is a folder; a file of JSON lines is needed")
        out = source.with_suffix(".predictions.jsonl") if cfg.out is None else Path(cfg.out)
        if cfg.out == "-" or (out.exists() and not out.is_file()):
            raise UserError(
                f"out={out} is no file; one is needed, so that a call can go on after an interruption"
            )
        if out.exists() and out.samefile(source):
            raise UserError(f"out={out} is the input itself; name another file")
        run = Run.open(cfg.run)
        names = run.selectable_checkpoints(cfg.checkpoint)
        decided_by = {
            "input": sha256(source),
            "run": run.id,
            **{f"checkpoint {name}": sha256(run.checkpoint_path(name)) for name in names},
            "precision": cfg.precision or run.cfg.trainer.precision,
            "explain": cfg.explain,
        }
        with open_append_file(out, decided_by) as lines:
            options = {key: cfg[key] for key in ("batch_size", "accelerator", "precision")}
            model = Predictor(run, cfg.checkpoint, **options, processes=processes)
            try:
                _answer(source, cfg.input, model, lines, cfg.explain)
            except KeyboardInterrupt as stop:
                raise SystemExit(f"{out}: interrupted; call again to go on") from stop
    return out


@contextmanager
def _readable_twice(cfg: DictConfig) -> Iterator[Path]:
    """Yield the input as a file that can be read twice: to find every fault, and then to answer.

    A pipe, or `-` for standard input, is copied to a temporary file.
    """
    source = Path(cfg.input)
    if cfg.input != "-" and not (source.exists() and stat.S_ISFIFO(source.stat().st_mode)):
        yield source
        return
    if cfg.out is None:
        raise UserError(f"input={cfg.input} is a pipe, which gives the output no name: give out=FILE")
    if cfg.input == "-" and sys.stdin is None:
        raise UserError("input=- is standard input, which is closed")
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as copy:
        with sys.stdin.buffer if cfg.input == "-" else source.open("rb") as pipe:
            shutil.copyfileobj(pipe, copy)
        copy.flush()
        yield Path(copy.name)


def _answer(source: Path, name: str, model: Predictor, lines: AppendFile, explain: bool) -> None:
    # All lines are read before the first is answered: a bad line must not cost the others.
    texts = log_unused(_requests(source, name, model))
    done = 0
    with tqdm(total=texts, unit="line", dynamic_ncols=True) as bar:
        for window in windows(_requests(source, name, model), model.batch_size):
            done += len(window)
            # The windows are those of an unbroken call, so that each batch is the same.
            if (left := done - lines.count) > 0:
                answered = zip(model.answer(window), window, strict=True)
                lines.add([_line(*one, explain) for one in answered][-left:])
            bar.update(len(window))
    model.log_cut(texts)


def _line(answer: str, request: Request, explain: bool) -> str:
    explained = {
        "read": request.text,
        "features": request.features,
        "dropped": request.dropped,
        "unused": request.unused,
        "checkpoint": request.checkpoint,
    }
    return json.dumps({"prediction": answer, **(explained if explain else {})}, ensure_ascii=False)


def _requests(source: Path, name: str, model: Predictor) -> Iterator[Request]:
    try:
        for where, line in read_objects(source):
            yield model.requests.from_line(line, where)
    except UserError as error:  # it names the copy of a pipe
        raise UserError(str(error).replace(str(source), name)) from error
