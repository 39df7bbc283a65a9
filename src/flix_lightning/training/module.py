"""The LightningModule: an adapted model that trains on mixed batches and is evaluated by generation."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from flix_lightning.adapter.features import FeatureDropout
from flix_lightning.adapter.lazy_adam import LazyAdam, clip_sparse_grad_norm_
from flix_lightning.adapter.projection import Adapter
from flix_lightning.adapter.row_rates import row_ratios, scale_steps
from flix_lightning.common.errors import UserError
from flix_lightning.data.mixture import Dataset
from flix_lightning.models.base import Base
from flix_lightning.models.generation import Generator
from flix_lightning.models.loss import token_loss
from flix_lightning.runs.predictions import Prediction
from flix_lightning.runs.rows import mean_key
from flix_lightning.tasks.definitions import Tasks
from flix_lightning.tasks.metrics import score_texts

#: Steps whose losses are checked together.
LOSSES = 10


@dataclass(frozen=True)
class Score:
    """The scores and predictions of one evaluated dataset.

    Attributes:
        values: metric -> score, for each metric of the task. The first metric selects checkpoints.
        predictions: one for each example, in the order of the file.
    """

    dataset: Dataset
    values: dict[str, float]
    predictions: list[Prediction]


class FlixModule(LightningModule):
    """Trains an adapter; the base stays frozen and in eval mode.

    Its checkpoints hold the adapter and what training needs to resume, without the base.

    Args:
        base, adapter: the base model, and the adapter that is injected into it.
        dropout: feature dropout, for training only.
        evaluated: the evaluated datasets. An evaluation batch has the index of each example's dataset.
        learning_rate, warmup_steps: the learning rate after a linear warm-up, and the steps of the warm-up.
        learning_rate_ratios: kind -> what the learning rate of its features is multiplied by; None is 1 for
            all kinds.
        lazy: whether the optimizer is `LazyAdam`, for an adapter with sparse gradients, or else AdamW.
        max_new_tokens: tokens of the longest generated target.
        on_scores: called with ("validation" or "test", scores) after each evaluation.
        tasks: those of the evaluated datasets. None is the shipped tasks.
    """

    # A checkpoint holds the adapter only, and `on_load_checkpoint` checks it.
    strict_loading = False

    def __init__(
        self,
        base: Base,
        adapter: Adapter,
        dropout: FeatureDropout,
        evaluated: Sequence[Dataset],
        *,
        learning_rate: float,
        warmup_steps: int,
        learning_rate_ratios: Mapping[str, float] | None = None,
        lazy: bool,
        max_new_tokens: int,
        on_scores: Callable[[str, list[Score]], None],
        tasks: Tasks | None = None,
    ):
        super().__init__()
        self.base, self.model = base, base.model.eval()
        self.generate = Generator(base, adapter, max_new_tokens)
        self.adapter = adapter
        self.dropout = dropout
        self.evaluated = evaluated
        self.learning_rate, self.warmup_steps, self.lazy = learning_rate, warmup_steps, lazy
        self.learning_rate_ratios = learning_rate_ratios
        self.on_scores, self.tasks = on_scores, tasks or Tasks.of()
        self.active: Collection[str] | None = None  # feature kinds that are on in evaluation; None is all
        self.leaving = False  # set when the process is to exit: the rest of an evaluation is skipped
        self._predictions: dict[int, dict[int, Prediction]] = defaultdict(dict)
        self._step_loss = 0.0
        self.gradient_norm: Tensor | None = None  # of the last step, before clipping; None if unknown
        self._losses: dict[int, Tensor] = {}  # step -> its loss, of the steps that are not checked yet
        # Examples that this process saw, and those of them without an active feature. It is not a buffer,
        # because DDP would overwrite it with that of the first process.
        self._seen_without = torch.zeros(2, dtype=torch.long)
        self.seconds = 0.0  # of training, including the time before the run was resumed

    def train(self, mode: bool = True) -> "FlixModule":
        """Set the mode of the adapter. The base stays in eval mode, without its dropout."""
        super().train(mode)
        self.model.eval()
        return self

    # -- training

    def on_train_start(self) -> None:
        """Start the clock."""
        self._began = time.monotonic() - self.seconds

    def training_step(self, batch: dict[str, Any]) -> Tensor:
        """Return one micro-batch's share of the effective batch's mean loss over target tokens."""
        features = self.dropout(batch["features"], batch["ids"], batch["step"])
        rows = self.adapter.space.rows(features, self.dropout.factor)
        with self.adapter.route(rows):
            total = token_loss(self.base, batch, batch["own_target_tokens"])
        without = (rows.index == self.adapter.space.null_row).all(dim=1).sum()
        self._seen_without += torch.tensor([len(features), without])
        loss = total / batch["target_tokens"]
        self._step_loss += loss.detach()
        # The loss is already divided by the target tokens of all micro-batches and processes. Lightning will
        # divide it by the number of micro-batches, and DDP by the number of processes.
        return loss * self.trainer.accumulate_grad_batches * self.trainer.world_size

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep the loss of the effective batch, and make it known to callbacks."""
        loss = self.trainer.strategy.reduce(torch.as_tensor(self._step_loss), reduce_op="sum")
        self._losses[self.global_step + 1] = loss
        self.log("train/loss", loss, logger=False)  # TrainingMonitor logs it
        self._step_loss = 0.0

    def _check_losses(self) -> None:
        """Raise UserError if a loss since the last check is not finite: the weights after it are not, either.

        A check at each step would wait for the GPU.
        """
        losses = torch.stack(list(self._losses.values())).tolist() if self._losses else []
        for step, loss in zip(self._losses, losses, strict=True):
            if not math.isfinite(loss):
                raise UserError(
                    f"the loss of step {step} is {loss}: a lower optimizer.learning_rate, another "
                    "trainer.precision or model.dtype, or a base without faults is needed"
                )
        self._losses.clear()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the gradient, and keep it. Lightning's own refuses fused AdamW in bf16-mixed.

        Raises UserError if the precision scales gradients, whose true norm is then unknown before the step.
        """
        if getattr(self.trainer.precision_plugin, "scaler", None):
            if gradient_clip_val is None:
                return
            raise UserError(
                f"trainer.precision={self.trainer.precision} scales gradients, so they cannot be clipped: "
                "take bf16-mixed, or trainer.gradient_clip_val=null"
            )
        clip = clip_sparse_grad_norm_ if self.lazy else nn.utils.clip_grad_norm_
        largest = math.inf if gradient_clip_val is None else gradient_clip_val
        self.gradient_norm = clip(self.adapter.parameters(), largest)

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop after the last step, so that it is validated whatever `val_check_interval` is."""
        self.seconds = time.monotonic() - self._began
        if len(self._losses) == LOSSES:
            self._check_losses()
        if self.global_step >= self.trainer.max_steps:
            self.trainer.should_stop = True

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW or LazyAdam without weight decay, which would shrink rows of features that a batch lacks."""
        pools, rate = list(self.adapter.parameters()), self.learning_rate
        own = self.learning_rate_ratios
        ratios = row_ratios(self.adapter.space, own) if own else None
        if self.lazy:
            optimizer = LazyAdam(pools, lr=rate, ratios=ratios)
        else:
            optimizer = torch.optim.AdamW(pools, lr=rate, weight_decay=0.0, fused=True)
            if ratios is not None:
                scale_steps(optimizer, pools, ratios)
        warmup = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, self.warmup_steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": warmup, "interval": "step"}}

    # -- evaluation

    def on_validation_start(self) -> None:
        """Check that the losses are finite before evaluating; raises UserError if not."""
        self._check_losses()

    def validation_step(self, batch: dict[str, Any]) -> None:
        """Generate greedily, and keep each example's prediction for its dataset's metric."""
        if self.leaving:
            return
        features = [
            [name for name in names if self.active is None or name.partition(":")[0] in self.active]
            for names in batch["features"]
        ]
        predictions = self.generate(batch, features)
        found = zip(
            batch["dataset"], batch["position"], batch["ids"], predictions, batch["targets"], strict=True
        )
        for dataset, position, id, prediction, target in found:
            self._predictions[int(dataset)][int(position)] = Prediction(id, prediction, target)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Score every dataset, log the means that select checkpoints, and pass all scores on."""
        scores = self._scores()
        by_task = defaultdict(list)
        for score in scores:
            by_task[score.dataset.task].append(next(iter(score.values.values())))
        means = {mean_key("val", task): fmean(values) for task, values in by_task.items()}
        means[mean_key("val")] = fmean(means.values())
        self.log_dict(means, logger=False)  # the loggers get them from `on_scores`
        self.on_scores("validation", scores)

    def on_test_epoch_end(self) -> None:
        """Score every dataset, and pass all scores on."""
        self.on_scores("test", self._scores())

    def _scores(self) -> list[Score]:
        gathered: list[dict[int, dict[int, Prediction]]] = [dict(self._predictions)]
        if self.trainer.world_size > 1:
            gathered = [{}] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, dict(self._predictions))
        self._predictions.clear()
        scores = []
        for index, dataset in enumerate(self.evaluated):
            by_position = {k: v for part in gathered for k, v in part.get(index, {}).items()}
            if not by_position:
                continue
            predictions = [by_position[position] for position in sorted(by_position)]
            _, texts, targets = zip(*predictions, strict=True)
            metrics = self.tasks.get(dataset.task).metrics
            values = {metric: score_texts(metric, texts, targets) for metric in metrics}
            scores.append(Score(dataset, values, predictions))
        return scores

    # -- checkpoints

    def seen_without(self) -> Tensor:
        """Count the examples that were trained on, and those of them without an active feature: long [2].

        The counts are summed over all processes. Every process must call this.
        """
        return self.trainer.strategy.reduce(
            self._seen_without.to(self.device, copy=True), reduce_op="sum"
        ).cpu()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the adapter, its features and the counts; raises UserError if a loss is not finite."""
        self._check_losses()
        checkpoint["state_dict"] = {}
        checkpoint["adapter"] = self.adapter.state_dict()
        checkpoint["ranks"] = dict(self.adapter.space.ranks)
        checkpoint["seen_without"] = self.seen_without()
        checkpoint["seconds"] = self.seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume from a checkpoint; raises UserError as `Adapter.load_state_dict` does."""
        self.adapter.load_state_dict(checkpoint["adapter"], checkpoint["ranks"])
        self._seen_without.copy_(checkpoint["seen_without"] if self.global_rank == 0 else torch.zeros(2))
        self.seconds = checkpoint["seconds"]
        # Lightning counts micro-batches. A step may now have another number of them than before.
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        done = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        for counts in (progress["total"], progress["current"]):
            counts.update(dict.fromkeys(counts, done))
