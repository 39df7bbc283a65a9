"""What a run logs while it trains: the loss, the learning rate, the norm of the gradient, the speed."""

import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer


class TrainingMonitor(Callback):
    """Logs training every `log_every_n_steps` steps and at the last step, at the number of steps done.

    Lightning's LearningRateMonitor and ThroughputMonitor log once for each micro-batch, at other numbers of
    steps. The second waits for the GPU each time. A step has `batch_size` examples.
    """

    def __init__(self, batch_size: int):
        self.batch_size = batch_size

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start measuring the speed."""
        self._step, self._time = trainer.global_step, time.monotonic()

    def on_before_optimizer_step(
        self, trainer: Trainer, module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Keep the learning rate of this step: when the batch ends, the optimizer has that of the next."""
        self._learning_rate = optimizer.param_groups[0]["lr"]

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Restart measuring the speed, so that the time of the validation does not count."""
        self.on_train_start(trainer, module)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Log the step if it is due and this micro-batch was its last."""
        step, every = trainer.global_step, trainer.log_every_n_steps
        is_due = every and (step % every == 0 or step == trainer.max_steps)
        if step == self._step or not is_due or not trainer.loggers:
            return
        loss = trainer.callback_metrics["train/loss"].item()  # waits for the GPU, so that the time is right
        steps, seconds = step - self._step, time.monotonic() - self._time
        values = {
            "train/loss": loss,
            "train/learning_rate": self._learning_rate,
            "train/examples_per_second": steps * self.batch_size / seconds,
        }
        if module.gradient_norm is not None:
            values["train/gradient_norm"] = module.gradient_norm.item()
        for logger in trainer.loggers:
            logger.log_metrics(values, step)
            logger.save()
        self.on_train_start(trainer, module)
