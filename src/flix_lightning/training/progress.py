"""Progress of a run: its step, its loss and the time left, as a bar or as log lines."""

import logging
import time
from datetime import timedelta
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

log = logging.getLogger(__name__)

EVERY = 15.0  # seconds between lines


class ProgressBar(Callback):
    """A bar of the run's optimizer steps, with the time left."""

    def __init__(self, name: str):
        self.name = name

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the bar at the step that the run resumes from."""
        self.bar = tqdm(
            total=trainer.max_steps,
            initial=trainer.global_step,
            desc=self.name,
            unit="step",
            dynamic_ncols=True,
            disable=not trainer.is_global_zero,
        )

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Move to the current step."""
        loss = trainer.callback_metrics.get("train/loss")
        # Reading the loss waits for the GPU, so it is read only when the bar is drawn.
        if loss is not None and time.time() - self.bar.last_print_t >= self.bar.mininterval:
            self.bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
        self.bar.update(trainer.global_step - self.bar.n)

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Show that a validation is running."""
        self.bar.set_postfix_str("validating")

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Close the bar."""
        self.bar.close()

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open a bar of generated batches."""
        self.bar = tqdm(
            total=sum(trainer.num_test_batches),
            desc="testing",
            unit="batch",
            leave=False,
            disable=not trainer.is_global_zero,
        )

    def on_test_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Count a batch."""
        self.bar.update()

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Close the bar."""
        self.bar.close()


class ProgressLines(Callback):
    """Logs a run's step, loss and time left every EVERY seconds, from its leading process."""

    def __init__(self, name: str):
        self.name = name

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock."""
        self.began, self.first, self.logged = time.monotonic(), trainer.global_step, 0.0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Log a line if the last line is at least EVERY seconds old."""
        now, done = time.monotonic(), trainer.global_step - self.first
        if not done or now - self.logged < EVERY or not trainer.is_global_zero:
            return
        self.logged = now
        left = timedelta(seconds=round((now - self.began) / done * (trainer.max_steps - trainer.global_step)))
        loss = trainer.callback_metrics.get("train/loss", float("nan"))
        log.info(
            "%s: step %d of %d, loss %.3f, %s left",
            self.name,
            trainer.global_step,
            trainer.max_steps,
            loss,
            left,
        )

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Log that validation begins."""
        if trainer.is_global_zero:
            log.info("%s: validating at step %d", self.name, trainer.global_step)

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Log that a test begins, and with which features; each task and each control has its own test."""
        if trainer.is_global_zero:
            active = "all" if module.active is None else " and ".join(module.active) or "no"
            batches = sum(trainer.num_test_batches)
            log.info("%s: testing with %s features, batches: %d", self.name, active, batches)


#: `trainer.progress` -> the callback: a bar for a terminal, or lines for logs and for jobs side by side.
PROGRESS = {"bar": ProgressBar, "lines": ProgressLines}
