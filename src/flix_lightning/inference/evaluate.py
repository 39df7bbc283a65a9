"""A finished run's scores on any test data in the layout, and its predictions in XTREME-UP's form."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from lightning import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from flix_lightning.adapter.features import FeatureSpace
from flix_lightning.adapter.projection import inject
from flix_lightning.common import settings
from flix_lightning.common.errors import UserError
from flix_lightning.common.files import sha256, write_atomic
from flix_lightning.data.archive import open_layout
from flix_lightning.data.layout import Layout
from flix_lightning.data.mixture import Dataset, Mixture
from flix_lightning.reports import render
from flix_lightning.reports.tables import evaluation
from flix_lightning.runs import rows as results
from flix_lightning.runs.folder import RunFolder, run_id
from flix_lightning.runs.plan import given_or_made
from flix_lightning.runs.trained import GENERATING, TAKING_UP, TrainedRun
from flix_lightning.tasks.definitions import get_task
from flix_lightning.training import train as experiment
from flix_lightning.training.module import Score
from flix_lightning.training.progress import ProgressBar

log = logging.getLogger(__name__)

#: What each setting of `conf/evaluate.yaml` may be.
SETTINGS = {
    **TAKING_UP,
    **GENERATING,
    "data.root": settings.nullable(settings.PATH_OR_CALL),
    "output": settings.TEXT,
}


def evaluate(cfg: DictConfig) -> RunFolder:
    """Do what `conf/evaluate.yaml` asks for, or the rest of it; give the folder of the evaluation.

    It has the rows in `results.jsonl`, and in `predictions/` a file of `{"prediction": …}` lines for each of
    the data's, in the same place and order: what XTREME-UP's scorer reads as a submission.

    Raises:
        RunBusy: another process is at this evaluation.
        UserError: a value out of its choices; no finished run, or none of its checkpoints; data that is not
            there or bad, before anything is written.
    """
    settings.check(cfg, SETTINGS)
    run = TrainedRun.open(cfg.run)
    layout, mixture = _data(run, cfg)
    merged = _settings(run, cfg)
    chosen = {task: run.select(cfg.checkpoint, [task]) for task in {one.task for one in mixture.evaluate}}
    deciding = {
        "schema": results.SCHEMA,
        "run": run.id,
        "checkpoints": {task: sha256(run.folder.checkpoint(name)) for task, name in chosen.items()},
        "files": layout.fingerprint(layout.path(one.task, "test", one.language) for one in mixture.evaluate),
        "datasets": [[one.attributes, one.seen] for one in mixture.evaluate],
        "tasks": [asdict(get_task(task)) for task in sorted(chosen)],
        "precision": merged.trainer.precision,
    }
    parent = Path(cfg.output) / "evaluations" / run.folder.path.resolve().name
    folder = RunFolder(parent / f"{layout.root.name}-{run_id(deciding)}")
    if not folder.finished:
        with folder.lock():
            _Evaluation(run, merged, layout, mixture, chosen, folder).run()
    return folder


def _data(run: TrainedRun, cfg: DictConfig) -> tuple[Layout, Mixture]:
    """The data to evaluate, and the run's mixture with all of its test sets."""
    unpack_to = Path(cfg.output) / "data"
    asked = None if cfg.data.root is None else open_layout(given_or_made(cfg.data.root), unpack_to)
    own = None
    if asked is None or run.cfg.data.allow_missing:  # else it trained on all that its mixture names
        try:
            own = open_layout(given_or_made(run.cfg.data.root), unpack_to)
        except UserError as reason:
            if asked is None:
                raise
            log.warning("%s; so all that the run's mixture names counts as trained", reason)
    trained = Mixture.resolve(run.cfg.mixture, own, run.cfg.data.allow_missing)
    layout = asked or own
    return layout, trained.of_tests(layout)


def _settings(run: TrainedRun, cfg: DictConfig) -> DictConfig:
    """The run's settings, with those of this evaluation."""
    asked = {
        "output": cfg.output,
        "evaluation": {"test_cap": None, "batch_size": cfg.batch_size or run.cfg.evaluation.batch_size},
        "trainer": {
            "accelerator": cfg.accelerator,
            "precision": cfg.precision or run.cfg.trainer.precision,
        },
    }
    return OmegaConf.merge(run.cfg, asked)


class _Evaluation:
    """The parts of an evaluation, of which datasets that are finished are left out."""

    def __init__(
        self,
        run: TrainedRun,
        cfg: DictConfig,
        layout: Layout,
        mixture: Mixture,
        chosen: Mapping[str, str],
        folder: RunFolder,
    ):
        self.run_id, self.cfg, self.mixture, self.folder = run.id, cfg, mixture, folder
        self.layout = layout
        self.checkpoints = {name: run.checkpoint(name) for name in sorted(set(chosen.values()))}
        self.chosen = chosen
        base = run.base()
        ranks = next(iter(self.checkpoints.values()))["ranks"]
        adapter = inject(base.model, FeatureSpace(ranks), cfg.model.targets)
        kinds = dict.fromkeys(feature.partition(":")[0] for feature in ranks)
        self.data = experiment.data_module(cfg, layout, mixture, base, kinds)
        self.module = experiment.flix_module(cfg, base, adapter, mixture.evaluate, self._keep)
        self.step = 0  # of the weights that are evaluated

    def run(self) -> None:
        """Evaluate what is left, and write the results."""
        self.data.table("test")  # so that a bad line of any file ends it before the first dataset
        trainer = self._trainer()
        for index, dataset in enumerate(self.mixture.evaluate):
            if self._row_file(dataset).exists():
                continue
            checkpoint = self.checkpoints[self.chosen[dataset.task]]
            self.module.load_adapter(checkpoint)
            self.step = checkpoint["global_step"]
            trainer.test(self.module, self.data.eval_loader("test", [index]), verbose=False)
        rows = [row for one in self.mixture.evaluate for row in results.read(self._row_file(one))]
        render.save(evaluation.table(rows), self.folder.path, "scores")
        write_atomic(self.folder.config, OmegaConf.to_yaml(self.cfg, resolve=True))
        results.write(self.folder.results, rows)

    def _trainer(self) -> Trainer:
        cfg = self.cfg.trainer
        try:
            return Trainer(
                accelerator=cfg.accelerator,
                devices=1,
                precision=cfg.precision,
                callbacks=[ProgressBar(self.folder.path.name)],
                logger=False,
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=False,
            )
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise UserError(f"Lightning refuses the accelerator or precision: {error}") from error

    def _keep(self, _: str, scores: list[Score]) -> None:
        """Put a dataset's predictions away, and then its row, by which it is known to be finished."""
        for score in scores:
            dataset = self.mixture.evaluate[score.index]
            row = experiment.score_row(
                score,
                dataset,
                run=self.run_id,
                method=self.cfg.flix.name,
                mixture=self.mixture.name,
                seed=self.cfg.seed,
                split="test",
                active="all",
                step=self.step,
            )
            lines = [json.dumps({"prediction": one}, ensure_ascii=False) for _, one, _ in score.predictions]
            place = self.layout.path(dataset.task, "test", dataset.language).relative_to(self.layout.root)
            write_atomic(self.folder.path / "predictions" / place, "\n".join(lines) + "\n")
            results.write(self._row_file(dataset), [row])
            log.info("%s/%s: %s %.1f", row.task, row.language, row.metric, row.value)

    def _row_file(self, dataset: Dataset) -> Path:
        return self.folder.path / "rows" / dataset.task / f"{dataset.language}.jsonl"
