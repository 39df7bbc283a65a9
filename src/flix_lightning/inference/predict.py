"""From a file of lines to a file of predictions, in memory that does not grow with either."""

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from flix_lightning.common import settings
from flix_lightning.common.append_file import AppendFile, open_append_file
from flix_lightning.common.files import sha256
from flix_lightning.data.jsonl import read_objects
from flix_lightning.inference import predictor as predict
from flix_lightning.inference.predictor import Predictor, Request, Tally
from flix_lightning.runs.trained import GENERATING, TAKING_UP, TrainedRun

log = logging.getLogger(__name__)

WINDOW = 8  # batches that are sorted by length together, and lost where the process is killed

#: What each setting of `conf/predict.yaml` may be.
SETTINGS = {
    **TAKING_UP,
    **GENERATING,
    "input": settings.TEXT,
    "out": settings.nullable(settings.TEXT),
    "explain": settings.BOOLEAN,
}

#: Characters of text that end a window early, as a few very long lines must not fill the memory.
WINDOW_CHARACTERS = 2**22


def predict_file(cfg: DictConfig) -> Path:
    """Do what `conf/predict.yaml` asks for, or the rest of it; give the file of predictions.

    Each line of the input gives one of the output, in its order: `{"prediction": …}`, and with `explain` all
    of its `Request` too. Memory holds a window of them, and each name that cannot be used once.

    Raises:
        UserError: a value out of its choices; as `read_objects`, `Predictor.request`, `predict.load` and
            `open_append_file`.
        OSError: the predictions cannot be written; those that are stay, and another call goes on.
        SystemExit: on Ctrl-C, with a line that says so.
    """
    settings.check(cfg, SETTINGS)
    source = Path(cfg.input)
    out = source.with_suffix(".predictions.jsonl") if cfg.out is None else Path(cfg.out)
    run = TrainedRun.open(cfg.run)
    precision = cfg.precision or run.cfg.trainer.precision
    made_of = {
        "input": sha256(source),
        "run": run.id,
        **{f"checkpoint {one}": sha256(run.folder.checkpoint(one)) for one in run.candidates(cfg.checkpoint)},
        "precision": precision,
        "explain": cfg.explain,
    }
    with open_append_file(out, made_of) as lines:
        model = predict.load(
            run,
            cfg.checkpoint,
            batch_size=cfg.batch_size,
            accelerator=cfg.accelerator,
            precision=precision,
        )
        try:
            _answer(source, model, lines, cfg.explain)
        except KeyboardInterrupt as stop:
            raise SystemExit(f"{out}: interrupted; call again to go on") from stop
    return out


def _answer(source: Path, model: Predictor, lines: AppendFile, explain: bool) -> None:
    # All of them are read before the first is answered, as a bad one must not cost the others.
    tally = Tally(_requests(source, model))
    tally.say()
    done = 0
    with tqdm(total=tally.texts, unit="line", dynamic_ncols=True) as bar:
        for window in _windows(_requests(source, model), WINDOW * model.batch_size):
            done += len(window)
            # Windows are those of an unbroken call, so that each batch is the same again.
            if (left := done - lines.count) > 0:
                answered = zip(model.answer(window), window, strict=True)
                lines.add([_line(*one, explain) for one in answered][-left:])
            bar.update(len(window))
    if model.cut:
        log.warning("of %d texts, longer than the run's inputs, so cut: %d", tally.texts, model.cut)


def _line(answer: str, request: Request, explain: bool) -> str:
    explained = {
        "read": request.text,
        "features": request.features,
        "dropped": request.dropped,
        "unused": request.unused,
        "checkpoint": request.checkpoint,
    }
    return json.dumps({"prediction": answer, **(explained if explain else {})}, ensure_ascii=False)


def _requests(source: Path, model: Predictor) -> Iterator[Request]:
    for where, line in read_objects(source):
        yield model.request(line, where)


def _windows(requests: Iterable[Request], size: int) -> Iterator[list[Request]]:
    window, characters = [], 0
    for request in requests:
        window.append(request)
        characters += len(request.text)
        if len(window) == size or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window
