"""One run, from its plan to its results."""

import gc
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from flix_lightning.adapter.features import FeatureDropout, FeatureSpace
from flix_lightning.adapter.layers import compile_layers
from flix_lightning.adapter.projection import Adapter, inject
from flix_lightning.common.errors import UserError
from flix_lightning.common.files import write_atomic
from flix_lightning.data.datamodule import DataModule
from flix_lightning.data.layout import Layout
from flix_lightning.data.mixture import Dataset, Mixture
from flix_lightning.data.tokenization import DECODER_ONLY_SEPARATOR
from flix_lightning.models import base as models
from flix_lightning.models import vocabulary
from flix_lightning.models.base import Base
from flix_lightning.runs import checkpoints
from flix_lightning.runs import rows as results
from flix_lightning.runs.checkpoints import BestCheckpoint, WholeCheckpoints
from flix_lightning.runs.folder import write_predictions
from flix_lightning.runs.plan import Plan, given_or_made, plain, plan
from flix_lightning.runs.rows import Row
from flix_lightning.tasks.definitions import get_task
from flix_lightning.training.interruption import EXIT_CODE, Preemption
from flix_lightning.training.loggers import log_evaluation, note_skipped, open_loggers
from flix_lightning.training.module import FlixModule, Score
from flix_lightning.training.progress import progress_callback

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float:
    """Do a run, go on with it, or find it done; return the mean validation score of the chosen checkpoints.

    Raises:
        RunBusy: another process is at this run.
        UserError: the config, the data, the base or a checkpoint is at fault.
    """
    return execute(plan(cfg))


def execute(run: Plan) -> float:
    """As `train`, for a run that was planned already."""
    leads = rank_zero_only.rank == 0  # the other processes of a run on several devices follow the first
    if not run.folder.finished:
        with run.folder.lock() if leads else nullcontext():
            if not run.folder.finished:  # else another process ended it while this one came to the lock
                if leads:
                    write_atomic(run.folder.config, OmegaConf.to_yaml(run.cfg, resolve=True))
                # The run before left circles of model, trainer and data: gigabytes, but so few objects that
                # Python's collector would let several pile up.
                gc.collect()
                with open_loggers(run.cfg.get("logger") or {}, run.tracked) as loggers, _interruptible(run):
                    _Execution(run, loggers).run()
                return _validation(run)
    note_skipped(run.tracked)
    return _validation(run)


def _validation(run: Plan) -> float:
    selected = results.selected_validation(results.read(run.folder.results), run.cfg.evaluation.selection)
    return fmean(selected.values())


def _cut(run: Plan) -> str:
    """The base model, with the vocabulary that it is to have."""
    model = run.cfg.model
    if model.vocabulary == "all":
        return run.pretrained
    texts = chain([DECODER_ONLY_SEPARATOR], run.mixture.texts(run.layout))
    known_by = run.mixture.fingerprint(run.layout)
    root = Path(run.cfg.output) / "models"
    return str(vocabulary.cut(run.pretrained, model.revision, model.dtype, texts, known_by, root))


@contextmanager
def _interruptible(run: Plan) -> Iterator[None]:
    """Say how to go on where the process is to end: on Ctrl-C, and on SIGTERM."""
    try:
        yield
    except SystemExit as stop:
        print(f"{run.folder.path}: interrupted; call again to go on", file=sys.stderr)
        sys.exit(stop.code or EXIT_CODE)  # Lightning's own has none, where it is asked before it trains


def data_module(
    cfg: DictConfig, layout: Layout, mixture: Mixture, base: Base, kinds: Iterable[str]
) -> DataModule:
    """Give a run's batches, with features of these kinds."""
    return DataModule(
        layout,
        mixture,
        base.tokenizer,
        is_encoder_decoder=base.is_encoder_decoder,
        kinds=list(kinds),
        max_input_length=cfg.data.max_input_length,
        max_target_length=cfg.data.max_target_length,
        batch_size=cfg.trainer.batch_size,
        micro_batch_size=cfg.trainer.micro_batch_size,
        eval_batch_size=cfg.evaluation.batch_size,
        validation_cap=cfg.evaluation.validation_cap,
        test_cap=cfg.evaluation.test_cap,
        max_steps=cfg.trainer.max_steps,
        seed=cfg.seed,
        cache_dir=Path(cfg.output) / "cache",
    )


def flix_module(
    cfg: DictConfig,
    base: Base,
    adapter: Adapter,
    evaluated: Sequence[Dataset],
    on_scores: Callable[[str, list[Score]], None],
) -> FlixModule:
    """Give a run's module."""
    return FlixModule(
        base,
        adapter,
        FeatureDropout(cfg.seed, plain(cfg.flix.dropout)),
        evaluated,
        learning_rate=cfg.optimizer.learning_rate,
        warmup_steps=cfg.optimizer.warmup_steps,
        lazy=cfg.optimizer.lazy,
        max_new_tokens=cfg.data.max_target_length,
        on_scores=on_scores,
    )


def score_row(score: Score, dataset: Dataset, **facts: Any) -> Row:
    """Make a row of the score of one dataset; `facts` are what it cannot know."""
    return Row(
        task=dataset.task,
        language=dataset.language,
        seen=dataset.seen,
        metric=get_task(dataset.task).metric,
        value=score.value,
        n=len(score.predictions),
        **facts,
    )


class _Execution:
    """The parts of a run that is being done, and the rows it has so far."""

    def __init__(self, run: Plan, loggers: Sequence[Logger]):
        cfg = run.cfg
        if cfg.trainer.threads:
            torch.set_num_threads(cfg.trainer.threads)
        self.plan, self.cfg, self.loggers = run, cfg, loggers
        base = models.load(_cut(run), cfg.model.revision, cfg.model.dtype)
        space = FeatureSpace(run.ranks, run.start.frozen if run.start else ())
        self.adapter = inject(
            base.model, space, cfg.model.targets, cfg.seed, sparse_gradients=cfg.optimizer.lazy
        )
        if run.start:
            run.start.load(self.adapter)
        log.info("%s", self.adapter.summary())
        if cfg.trainer.compile:  # first, so that what is recomputed is compiled
            compile_layers(base.model)
        if cfg.trainer.activation_checkpointing:
            self.adapter.checkpoint_layers(base.model)
        self.data = data_module(cfg, run.layout, run.mixture, base, cfg.flix.ranks)
        self.module = flix_module(cfg, base, self.adapter, run.mixture.evaluate, self._keep)
        self.checkpoints = run.folder.checkpoints
        self.validations = run.folder.path / "validations"
        self.rows: list[Row] = []
        self.step = 0  # of the weights under test

    def run(self) -> None:
        """Train, test, and write the results."""
        trainer = self._trainer()
        trainer.fit(self.module, self.data, ckpt_path=self._last(), weights_only=True)
        facts = self._facts(trainer.global_step)
        if self.cfg.evaluation.test:
            self._test(trainer)
        if trainer.is_global_zero:
            validations = sorted(self.validations.glob("*.jsonl"))
            results.write(
                self.plan.folder.results,
                [*facts, *(row for path in validations for row in results.read(path)), *self.rows],
            )
        trainer.strategy.barrier()

    def _trainer(self) -> Trainer:
        cfg, every = self.cfg.trainer, self.cfg.evaluation.every
        progress = progress_callback(cfg.progress, self.plan.folder.path.name)
        try:
            trainer = Trainer(
                accelerator=cfg.accelerator,
                devices=cfg.devices,
                strategy=given_or_made(cfg.strategy),
                precision=cfg.precision,
                max_steps=cfg.max_steps,
                gradient_clip_val=cfg.gradient_clip_val,
                logger=list(self.loggers),
                callbacks=[progress, Preemption(self.plan.folder.last), *self._checkpointing()],
                plugins=[WholeCheckpoints()],
                default_root_dir=self.checkpoints,  # where SLURM's own are saved, and looked for
                check_val_every_n_epoch=None,
                num_sanity_val_steps=0,
                log_every_n_steps=10,
                use_distributed_sampler=False,
                enable_model_summary=False,
                enable_progress_bar=False,
            )
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise UserError(f"Lightning refuses the settings under trainer: {error}") from error
        # Known only now: how many processes there are.
        if self.cfg.optimizer.lazy and trainer.world_size > 1:
            raise UserError(
                f"optimizer.lazy=true is for one process, and there are {trainer.world_size}, between which "
                "gradients of single rows are not averaged: take optimizer.lazy=false or trainer.devices=1"
            )
        self.data.trainer = trainer
        trainer.accumulate_grad_batches = self.data.accumulation
        trainer.val_check_interval = every * self.data.accumulation
        return trainer

    def _checkpointing(self) -> list[Callback]:
        """The best checkpoint of each selection, then the last, saved after them and knowing of them."""
        names = {self._selection(task): None for task in self._tasks()}
        options = {
            "dirpath": self.checkpoints,
            "enable_version_counter": False,
            "auto_insert_metric_name": False,
        }
        best = [
            BestCheckpoint(
                monitor="val/mean" if name == "average" else f"val/{name}/mean",
                mode="max",
                filename=self.plan.folder.best(name).stem,
                save_weights_only=True,
                **options,
            )
            for name in names
        ]
        return [*best, ModelCheckpoint(filename=self.plan.folder.last.stem, **options)]

    def _tasks(self) -> list[str]:
        return list(dict.fromkeys(dataset.task for dataset in self.plan.mixture.evaluate))

    def _selection(self, task: str) -> str:
        """Which selection gives the checkpoint that `task` is tested on."""
        validated = {dataset.task for dataset in self.plan.mixture.datasets("validation").values()}
        return task if self.cfg.evaluation.selection == "task" and task in validated else "average"

    def _last(self) -> Path | None:
        last = self.plan.folder.last
        if not last.exists():
            return None
        self._take(checkpoints.read(last, to_go_on=True), last)  # so that a wrong one ends in a clear line
        log.info("going on from %s", last)
        return last

    def _take(self, checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
        try:
            self.module.load_adapter(checkpoint)
        except UserError as error:
            raise UserError(f"{path}: {error}; delete {path.parent} to train anew") from error
        return checkpoint

    def _test(self, trainer: Trainer) -> None:
        for task in self._tasks():
            path = self.plan.folder.best(self._selection(task))
            checkpoint = self._take(checkpoints.read(path), path)
            self.step = checkpoint["global_step"]
            indices = [i for i, dataset in enumerate(self.plan.mixture.evaluate) if dataset.task == task]
            for active in (None, *plain(self.cfg.flix.controls)):
                self.module.active = active
                trainer.test(self.module, self.data.eval_loader("test", indices), verbose=False)

    @rank_zero_only
    def _keep(self, split: str, scores: list[Score]) -> None:
        """Make rows of an evaluation, log them, and put its predictions away."""
        active = "all" if self.module.active is None else "+".join(self.module.active) or "none"
        step = self.module.global_step if split == "validation" else self.step
        rows = []
        for score in scores:
            dataset = self.plan.mixture.evaluate[score.index]
            rows.append(score_row(score, dataset, split=split, active=active, step=step, **self._whose))
            evaluation = f"validation-{step}" if split == "validation" else f"test-{active}"
            write_predictions(
                self.plan.folder.predictions(evaluation, dataset.task, dataset.language),
                [dict(zip(("id", "prediction", "target"), one, strict=True)) for one in score.predictions],
            )
        log_evaluation(self.loggers, rows, step)
        if split == "validation":
            results.write(self.validations / f"{step:06}.jsonl", rows)
        else:
            self.rows += rows

    def _facts(self, step: int) -> list[Row]:
        examples, without = self.module.seen_without().tolist()
        space, kinds = self.adapter.space, self.data.tokenization.kinds
        rank = max(
            space.active_rank([f"{kind}:{attributes[kind]}" for kind in kinds])
            for attributes in self.plan.mixture.trained_attributes(self.plan.layout, kinds)
        )
        values = {
            "rank": rank,
            "active_parameters": self.adapter.active_parameters(rank),
            "total_parameters": self.adapter.total_parameters,
            "examples_seen": examples,
            "share_without_features": without / examples,
            "seconds": round(self.module.seconds, 1),
        }
        return [
            Row(
                split="train",
                task=None,
                language=None,
                seen=None,
                active="all",
                metric=metric,
                value=value,
                n=examples,
                step=step,
                **self._whose,
            )
            for metric, value in values.items()
        ]

    @property
    def _whose(self) -> dict[str, Any]:
        """What all of its rows say."""
        return {
            "run": self.plan.folder.id,
            "method": self.cfg.flix.name,
            "mixture": self.plan.mixture.name,
            "seed": self.cfg.seed,
        }
