"""A node that is about to be taken away: the run is saved, and its processes end."""

import signal
import threading
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

EXIT_CODE = 128 + signal.SIGTERM  # as shells have it


class Preemption(Callback):
    """Saves the run and leaves with exit code 143 once any of its processes gets a SIGTERM.

    Training ends with the step at hand. An evaluation ends with the batch at hand and is done again, a
    validation as the first thing when the run goes on. Of the last step's validation alone nothing is
    saved, as Lightning trains no run that has all its steps.

    It stands in for Lightning's own handling, which saves nothing, drops a signal in the last batch of a
    test, and in a run on several devices talks to the others from within the signal handler, whatever they
    are saying to each other at that time.

    Args:
        last: the checkpoint that the run goes on from.
    """

    def __init__(self, last: Path):
        self.last = last
        self.validation_left = False
        self._asked = False

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Listen, and do the validation that was left."""
        self._listen(trainer)
        if self.validation_left:
            validation = trainer.fit_loop.epoch_loop.val_loop
            validation.restarting = False  # from its first batch
            trainer.validating = True
            validation.run()
            trainer.training = True

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Listen, in a test."""
        self._listen(trainer)

    def _listen(self, trainer: Trainer) -> None:
        def note(*_: Any) -> None:
            launcher = trainer.strategy.launcher
            if launcher is not None and not self._asked:
                launcher.kill(signal.SIGTERM)  # the processes that this one started
            self._asked = trainer.lightning_module.leaving = True

        if threading.current_thread() is threading.main_thread():  # no other may
            signal.signal(signal.SIGTERM, note)  # until Lightning puts back what it found

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, index: int) -> None:
        """Leave between two steps."""
        if index % trainer.accumulate_grad_batches == 0 and self._all_asked(trainer):
            self._leave(trainer)

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Leave before anything is made of a validation that is not whole."""
        self.validation_left = self._all_asked(trainer)
        if self.validation_left:
            self._leave(trainer)

    def on_test_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Leave before anything is made of a test that is not whole."""
        if self._all_asked(trainer):
            raise SystemExit(EXIT_CODE)

    def _all_asked(self, trainer: Trainer) -> bool:
        """Whether one process is to leave, and so all are; each must ask."""
        return trainer.strategy.reduce_boolean_decision(self._asked, all=False)

    def _leave(self, trainer: Trainer) -> None:
        if trainer.global_step < trainer.max_steps:
            trainer.save_checkpoint(self.last, weights_only=False)
        raise SystemExit(EXIT_CODE)

    def state_dict(self) -> dict[str, bool]:
        """Give what a checkpoint must know."""
        return {"validation_left": self.validation_left}

    def load_state_dict(self, state_dict: dict[str, bool]) -> None:
        """Take over what a checkpoint knew."""
        self.validation_left = state_dict["validation_left"]
