"""A finished run's scores on any data in the layout, and its predictions in XTREME-UP's form."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from flix_lightning.common import settings
from flix_lightning.common.errors import UserError
from flix_lightning.common.files import make_folder, sha256, write_atomic
from flix_lightning.common.settings import plain
from flix_lightning.data.archive import open_layout
from flix_lightning.data.layout import Layout
from flix_lightning.data.mixture import Dataset, Mixture
from flix_lightning.inference.predictor import Predictor, lead_processes, windows
from flix_lightning.inference.processes import Processes
from flix_lightning.inference.requests import Request, log_unused
from flix_lightning.inference.settings import GENERATION, RUN
from flix_lightning.runs import rows as results
from flix_lightning.runs.identity import hash_settings
from flix_lightning.runs.lock import lock_folder
from flix_lightning.runs.rows import Row
from flix_lightning.runs.run import Run
from flix_lightning.runs.settings import make_value
from flix_lightning.tasks.definitions import Tasks
from flix_lightning.tasks.metrics import score_texts

log = logging.getLogger(__name__)

#: What each setting of `conf/evaluate.yaml` may be.
SETTINGS = {
    **RUN,
    **GENERATION,
    "tasks": settings.nullable(settings.MAPPING),
    "data.languages": settings.nullable(settings.MAPPING),
    "data.root": settings.nullable(settings.PATH_OR_CALL),
    "split": settings.choice("test", "validation"),
    "output": settings.TEXT,
}


def evaluate(cfg: DictConfig) -> Path:
    """Do what `conf/evaluate.yaml` asks for, or the rest of it.

    Returns:
        The folder of the evaluation, with the rows in `results.jsonl`, and in `predictions/` a file of
        `{"prediction": …}` lines for each file of the data, in the same place and order: XTREME-UP's scorer
        reads that folder as a submission.

    Raises:
        RunBusy: another process is working on this evaluation.
        UserError: a value is out of its choices; there is no such run or checkpoint; or data is missing or
            bad, before anything is written.
    """
    with lead_processes(cfg, "evaluate.py") as processes:
        settings.check(cfg, SETTINGS)
        return _evaluate(cfg, processes)


def _evaluate(cfg: DictConfig, processes: Processes) -> Path:
    make_folder(Path(cfg.output))  # before the data is looked for, which may be made
    run = Run.open(cfg.run, output=cfg.output)
    _add_tasks(run, cfg)
    layout, mixture = _data(run, cfg)
    names = {
        task: run.select_checkpoint(cfg.checkpoint, [task]) for task in {one.task for one in mixture.evaluate}
    }
    paths = [layout.path(one.task, cfg.split, one.language) for one in mixture.evaluate]
    deciding = {
        "schema": results.SCHEMA,
        "run": run.id,
        "checkpoints": {task: sha256(run.checkpoint_path(name)) for task, name in names.items()},
        "files": layout.fingerprint(paths),  # their paths name the split
        "datasets": [[one.attributes, one.seen] for one in mixture.evaluate],
        "tasks": [layout.tasks.get(task).deciding() for task in sorted(names)],
        "precision": cfg.precision or run.cfg.trainer.precision,
    }
    # Evaluations from before `data.languages` keep their folder.
    if languages := run.tasks.deciding_names(one.language for one in mixture.evaluate):
        deciding["languages"] = languages
    name = f"{layout.root.name}-{hash_settings(deciding)}"
    folder = Path(cfg.output) / "evaluations" / run.path.resolve().name / name
    if not (folder / "results.jsonl").exists():
        with lock_folder(folder):
            options = {key: cfg[key] for key in ("batch_size", "accelerator", "precision")}
            model = Predictor(run, cfg.checkpoint, **options, processes=processes)
            rows = _Evaluation(run, layout, mixture, cfg.split, model, folder).rows()
            write_atomic(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
            results.write(folder / "results.jsonl", rows)
    return folder


def _add_tasks(run: Run, cfg: DictConfig) -> None:
    """Add the tasks and names of languages that the command gives to those of the run, which come first."""
    own = {**(plain(cfg.tasks) or {}), **(plain(run.cfg.get("tasks")) or {})}
    names = {**(plain(cfg.data.languages) or {}), **run.tasks.language_names}
    run.tasks = Tasks.of(own, names)


def _data(run: Run, cfg: DictConfig) -> tuple[Layout, Mixture]:
    """The data to evaluate, and the run's mixture with all of the data's datasets that have the split."""
    asked = None
    if cfg.data.root is not None:
        asked = open_layout(make_value(cfg.data.root), Path(cfg.output) / "data", run.tasks)
    own = None
    if asked is None or run.cfg.data.allow_missing:  # otherwise it trained on all that its mixture names
        try:
            own = run.layout
        except UserError as reason:
            if asked is None:
                raise
            log.warning("%s; so all that the run's mixture names counts as trained", reason)
    trained = Mixture.resolve(run.cfg.mixture, own, run.cfg.data.allow_missing, run.tasks)
    layout = asked or own
    return layout, trained.evaluating(layout, cfg.split)


class _Evaluation:
    """An evaluation in its folder, where each finished dataset has a file of its row."""

    def __init__(
        self, run: Run, layout: Layout, mixture: Mixture, split: str, model: Predictor, folder: Path
    ):
        self.run, self.layout, self.mixture, self.split = run, layout, mixture, split
        self.model, self.folder = model, folder

    def rows(self) -> list[Row]:
        """Score every dataset that is left, and return the rows of all."""
        left = [one for one in self.mixture.evaluate if not self._row_file(one).exists()]
        # All files are read before the first dataset is scored: a bad line must not cost the others.
        texts = log_unused(request for dataset in left for request in self._requests(dataset))
        with tqdm(total=texts, unit="example", dynamic_ncols=True) as bar:
            for dataset in left:
                self._score(dataset, bar)
        self.model.log_cut(texts)
        return [row for one in self.mixture.evaluate for row in results.read(self._row_file(one))]

    def _requests(self, dataset: Dataset) -> Iterator[Request]:
        for example in self.layout.read(dataset.task, self.split, dataset.language):
            yield self.model.requests.from_example(dataset, example)

    def _score(self, dataset: Dataset, bar: tqdm) -> None:
        """Write a dataset's predictions, and then its row, by which it is known to be finished."""
        predictions: list[str] = []
        for window in windows(self._requests(dataset), self.model.batch_size):
            predictions += self.model.answer(window)
            bar.update(len(window))
            checkpoint = window[0].checkpoint
        examples = self.layout.read(dataset.task, self.split, dataset.language)
        targets = [example.target for example in examples]
        rows = [
            self.run.row(
                dataset,
                split=self.split,
                active="all",
                step=self.model.checkpoints[checkpoint].step,
                metric=metric,
                value=score_texts(metric, predictions, targets),
                n=len(predictions),
            )
            for metric in self.layout.tasks.get(dataset.task).metrics
        ]
        lines = [json.dumps({"prediction": one}, ensure_ascii=False) for one in predictions]
        place = self.layout.path(dataset.task, self.split, dataset.language).relative_to(self.layout.root)
        write_atomic(self.folder / "predictions" / place, "\n".join(lines) + "\n")
        results.write(self._row_file(dataset), rows)
        scores = ", ".join(f"{row.metric} {row.value:.1f}" for row in rows)
        log.info("%s/%s: %s", dataset.task, dataset.language, scores)

    def _row_file(self, dataset: Dataset) -> Path:
        return self.folder / "rows" / dataset.task / f"{dataset.language}.jsonl"
