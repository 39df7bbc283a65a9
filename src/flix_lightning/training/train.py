"""Training of one run, from its config to its results."""

import gc
import logging
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from statistics import fmean

import torch
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from flix_lightning.adapter.features import FeatureDropout, FeatureSpace
from flix_lightning.adapter.layers import compile_layers
from flix_lightning.adapter.projection import inject
from flix_lightning.common.errors import UserError
from flix_lightning.common.files import write_atomic
from flix_lightning.common.settings import passed_on, plain
from flix_lightning.data.datamodule import DataModule
from flix_lightning.models.checks import check_lengths
from flix_lightning.runs import rows as results
from flix_lightning.runs.checkpoints import Checkpoint
from flix_lightning.runs.predictions import write_predictions
from flix_lightning.runs.rows import Row
from flix_lightning.runs.run import Run
from flix_lightning.runs.settings import SETTINGS, make_value
from flix_lightning.training.checkpointing import AtomicCheckpointIO, checkpoint_callbacks
from flix_lightning.training.interruption import Preemption
from flix_lightning.training.loggers import log_evaluation, log_facts, open_loggers
from flix_lightning.training.module import FlixModule, Score
from flix_lightning.training.monitor import TrainingMonitor
from flix_lightning.training.processes import RunEnvironment, run_environment
from flix_lightning.training.progress import PROGRESS

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float:
    """Train a run, resume it, or find it finished.

    Returns:
        The mean validation score of the selected checkpoints, 0-100.

    Raises:
        RunBusy: another process is working on this run.
        UserError: the config, the data, the base or a checkpoint is at fault.
    """
    run = Run.resolve(cfg)
    environment = run_environment(run.cfg.trainer)
    preemption = Preemption(run, environment)
    with preemption.listen(), ExitStack() as stack:
        trainer = make_trainer(run, environment, preemption)
        # The leading process of a run decides for all of them.
        verdict = _claim(run, trainer, stack) if environment.leads else None
        verdict = environment.share(trainer.strategy, verdict)
        if isinstance(verdict, UserError):
            raise verdict
        if verdict:
            log.info("Skipped, %s", verdict)
        else:
            # The previous run of a sweep left reference cycles of gigabytes, but of so few objects that
            # Python would not collect them for several runs.
            gc.collect()
            Training(run, trainer).execute()
    return fmean(run.validation_scores().values())


def _claim(run: Run, trainer: Trainer, stack: ExitStack) -> UserError | str | None:
    """Lock the run and open its loggers until the stack ends; or return the reason not to train it."""
    finished = f"finished already: {run.path} (delete the folder to do it again)"
    try:
        if run.finished:
            return finished
        stack.enter_context(run.lock())
        if run.finished:  # another process may have finished it before this one got the lock
            return finished
        write_atomic(run.config, OmegaConf.to_yaml(run.cfg, resolve=True))
        trainer.loggers = stack.enter_context(open_loggers(run.cfg.get("logger") or {}, run))
    except UserError as error:
        return error
    return None


def make_trainer(run: Run, environment: RunEnvironment, preemption: Preemption) -> Trainer:
    """Make the run's trainer without loggers; raises UserError for refused or contradictory settings."""
    cfg = run.cfg.trainer
    own = {
        "callbacks": [
            PROGRESS[cfg.progress](run.name),
            TrainingMonitor(cfg.batch_size),
            preemption,
            *checkpoint_callbacks(run),
        ],
        "plugins": [AtomicCheckpointIO(), environment],
    }
    asked = {"log_every_n_steps": 10, "enable_model_summary": False, "enable_progress_bar": False}
    asked |= passed_on(run.cfg, SETTINGS, "trainer")
    for key in own:
        given = asked.pop(key, [])
        own[key] += given if isinstance(given, list) else [given]
    strategy = make_value(cfg.strategy)
    try:
        trainer = Trainer(
            accelerator=cfg.accelerator,
            devices=cfg.devices,
            num_nodes=cfg.num_nodes,
            strategy=strategy,
            precision=cfg.precision,
            max_steps=cfg.max_steps,
            gradient_clip_val=cfg.gradient_clip_val,
            logger=False,
            default_root_dir=run.path,  # in a SLURM job, Lightning resumes from any hpc_ckpt_* in this folder
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            **own,
            **asked,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise UserError(f"Lightning refuses the settings under trainer: {error}") from error
    if run.cfg.optimizer.lazy and trainer.world_size > 1:
        raise UserError(
            f"optimizer.lazy=true needs one process, and there are {trainer.world_size}: gradients of single "
            "rows are not averaged between processes; take optimizer.lazy=false or trainer.devices=1"
        )
    trainer._signal_connector.register_signal_handlers = lambda: None  # `preemption` handles them
    preemption.trainer = trainer
    return trainer


class Training:
    """A run while it trains: its model, its data, and its result rows so far."""

    def __init__(self, run: Run, trainer: Trainer):
        self.run, self.cfg, self.trainer = run, run.cfg, trainer
        cfg = run.cfg
        if cfg.trainer.threads:
            torch.set_num_threads(cfg.trainer.threads)
        base = run.load_base()
        lengths = cfg.data.max_input_length, cfg.data.max_target_length
        check_lengths(base.model, len(base.decoder_start), *lengths)
        space = FeatureSpace(run.ranks, run.start.frozen if run.start else ())
        self.adapter = inject(
            base.model, space, cfg.model.targets, cfg.seed, sparse_gradients=cfg.optimizer.lazy
        )
        if run.start:
            run.start.load_into(self.adapter)
        log.info("%s", self.adapter.summary())
        if cfg.trainer.compile:  # before checkpointing, so that a recomputed layer is a compiled one
            compile_layers(base.model)
        if cfg.trainer.activation_checkpointing:
            self.adapter.checkpoint_layers(base.model)
        self.data = DataModule(
            run.layout,
            run.mixture,
            run.tokenization(base),
            kinds=run.kinds,
            batch_size=cfg.trainer.batch_size,
            micro_batch_size=cfg.trainer.micro_batch_size,
            eval_batch_size=cfg.evaluation.batch_size,
            validation_cap=cfg.evaluation.validation_cap,
            test_cap=cfg.evaluation.test_cap,
            max_steps=cfg.trainer.max_steps,
            seed=cfg.seed,
            cache_dir=Path(cfg.output) / "cache",
        )
        self.module = FlixModule(
            base,
            self.adapter,
            FeatureDropout(cfg.seed, plain(cfg.flix.dropout), cfg.flix.rescale),
            run.mixture.evaluate,
            learning_rate=cfg.optimizer.learning_rate,
            learning_rate_ratios=plain(cfg.flix.learning_rate_ratios),
            warmup_steps=cfg.optimizer.warmup_steps,
            lazy=cfg.optimizer.lazy,
            max_new_tokens=cfg.data.max_target_length,
            on_scores=self._keep,
            tasks=run.tasks,
        )
        self.validations = run.path / "validations"
        self.rows: list[Row] = []
        self.step = 0  # of the weights that are being tested

        self.data.trainer = trainer
        trainer.accumulate_grad_batches = self.data.accumulation
        trainer.val_check_interval = cfg.evaluation.every * self.data.accumulation

    def execute(self) -> None:
        """Train, test, and write the results."""
        log_facts(self.trainer.loggers, self._sizes, self.trainer.global_step)
        self.trainer.fit(self.module, self.data, ckpt_path=self._last(), weights_only=True)
        step = self.trainer.global_step
        facts = self._facts(step)
        log_facts(self.trainer.loggers, {fact.metric: fact.value for fact in facts}, step)
        if self.cfg.evaluation.test:
            self._test()
            log_evaluation(self.trainer.loggers, self.rows, step)
        if self.trainer.is_global_zero:
            validations = [
                row for path in sorted(self.validations.glob("*.jsonl")) for row in results.read(path)
            ]
            results.write(self.run.results, [*facts, *validations, *self.rows])
        self.trainer.strategy.barrier()

    def _last(self) -> Path | None:
        """Return the checkpoint to resume from, if there is one; raise UserError if it does not fit."""
        last = self.run.checkpoint_path("last")
        if not last.exists():
            return None
        self._load(Checkpoint.read(last, to_resume=True))
        log.info("resuming from %s", last)
        return last

    def _load(self, checkpoint: Checkpoint) -> None:
        try:
            self.adapter.load_state_dict(checkpoint.pools, checkpoint.ranks)
        except UserError as error:
            path = checkpoint.path
            raise UserError(f"{path}: {error}; delete {path.parent} to train anew") from error

    def _test(self) -> None:
        evaluated = self.run.mixture.evaluate
        for task in dict.fromkeys(dataset.task for dataset in evaluated):
            checkpoint = self.run.checkpoint(self.run.selection(task))
            self._load(checkpoint)
            self.step = checkpoint.step
            indices = [i for i, dataset in enumerate(evaluated) if dataset.task == task]
            for active in (None, *plain(self.cfg.flix.controls)):
                self.module.active = active
                self.trainer.test(self.module, self.data.eval_loader("test", indices), verbose=False)

    @rank_zero_only
    def _keep(self, split: str, scores: list[Score]) -> None:
        """Make result rows of an evaluation, log them, and write its predictions."""
        active = "all" if self.module.active is None else "+".join(self.module.active) or "none"
        step = self.module.global_step if split == "validation" else self.step
        rows = []
        for score in scores:
            dataset = score.dataset
            evaluated = {"split": split, "active": active, "step": step, "n": len(score.predictions)}
            rows += [
                self.run.row(dataset, metric=metric, value=value, **evaluated)
                for metric, value in score.values.items()
            ]
            evaluation = f"validation-{step}" if split == "validation" else f"test-{active}"
            path = self.run.predictions_path(evaluation, dataset.task, dataset.language)
            write_predictions(path, score.predictions)
        if split == "validation":
            log_evaluation(self.trainer.loggers, rows, step)
            results.write(self.validations / f"{step:06}.jsonl", rows)
        else:
            self.rows += rows

    @cached_property
    def _sizes(self) -> dict[str, int]:
        """The largest rank of an example's update, the parameters of such an example, and all parameters."""
        space, kinds = self.adapter.space, self.data.kinds
        rank = max(
            space.active_rank([f"{kind}:{attributes[kind]}" for kind in kinds])
            for attributes in self.run.mixture.trained_attributes(self.run.layout, kinds)
        )
        return {
            "rank": rank,
            "active_parameters": self.adapter.active_parameters(rank),
            "total_parameters": self.adapter.total_parameters,
        }

    def _facts(self, step: int) -> list[Row]:
        examples, without = self.module.seen_without().tolist()
        values = self._sizes | {
            "examples_seen": examples,
            "share_without_features": without / examples,
            "seconds": round(self.module.seconds, 1),
        }
        return [
            self.run.row(None, split="train", active="all", step=step, metric=metric, value=value, n=examples)
            for metric, value in values.items()
        ]
