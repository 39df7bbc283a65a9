"""What an interrupted run keeps: it saves its state at intervals, and when a signal asks it to stop."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from flix_lightning.runs.run import Run
from flix_lightning.training.processes import RunEnvironment

#: Seconds of training after which a run saves its state, if no validation did.
SAVE_SECONDS = 600

#: The exit code of shells for a process that SIGTERM ended.
EXIT_CODE = 128 + signal.SIGTERM

#: Signals that ask a run to stop. If several arrive, the last of them in this order decides: at a time limit,
#: SLURM sends SIGTERM after the signal that asks to requeue.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Preemption(Callback):
    """Saves the run every SAVE_SECONDS, and saves it and exits with code 143 on any of SIGNALS to a process.

    On a signal, training stops after the current step. An evaluation stops after the current batch, and the
    resumed run repeats it: a validation is repeated before the next step. Nothing is saved during the
    validation of the last step, because Lightning does not resume a run that has done all its steps.

    SLURM can send SIGUSR1 or SIGUSR2 some time before a job's time limit. The job is then requeued, by the
    handler that submitit has set or by `scontrol requeue`. After SIGTERM, the run only stops.

    It replaces Lightning's own handling, which saves nothing on SIGTERM, loses a signal in the last batch of
    a test, and calls collectives within the signal handler.

    Attributes:
        trainer: the run's. Its launcher passes each signal on to the processes that it started.
        validation_left: whether the last checkpoint was saved within a validation, which is then repeated.
    """

    def __init__(self, run: Run, environment: RunEnvironment):
        self.run, self.leads = run, environment.leads
        self.trainer: Trainer | None = None
        self.validation_left = False
        self._module: LightningModule | None = None  # from the first step or test on
        self._asked = 0  # position in SIGNALS of the signal that came to this process, from 1
        self._agreed = 0  # the highest of all processes; `_asked` may change at any moment
        self._saved = 0.0  # time of the last save, or of the start

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Handle the signals within the block; if the process exits early, print how to resume the run."""
        if threading.current_thread() is not threading.main_thread():  # Python has no handlers there
            yield
            return
        previous = {one: signal.signal(one, self._note) for one in SIGNALS}
        try:
            yield
        except SystemExit as stop:
            if not self.leads:
                # After any other code, some launchers kill the leading process while it still writes.
                sys.exit(0)
            print(f"{self.run.path}: interrupted; call again to go on", file=sys.stderr)
            if (asked := max(self._asked, self._agreed)) > 1:
                _requeue(SIGNALS[asked - 1], previous)
            sys.exit(stop.code or EXIT_CODE)  # Lightning's own exit has no code before training
        finally:
            for one, handler in previous.items():
                signal.signal(one, handler)

    def _note(self, signum: int, _: Any) -> None:
        first = not self._asked
        self._asked = max(self._asked, SIGNALS.index(signum) + 1)
        if first and self.trainer and self.trainer.strategy.launcher:
            self.trainer.strategy.launcher.kill(signum)
        if self._module:
            self._module.leaving = True
        elif first:  # there is nothing to save
            sys.exit(EXIT_CODE)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """From now on, save before exiting; repeat the validation that was interrupted."""
        self._module, self._saved = module, time.monotonic()
        if self.validation_left:
            validation = trainer.fit_loop.epoch_loop.val_loop
            validation.restarting = False  # from its first batch
            counts = validation.batch_progress
            # Otherwise later checkpoints would count its batches twice.
            for name, begun in vars(counts.current).items():
                setattr(counts.total, name, getattr(counts.total, name) - begun)
            trainer.validating = True
            validation.run()
            trainer.training = True

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        """From now on, exit only after a batch."""
        self._module = module

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, index: int) -> None:
        """Save or exit between two steps.

        Nothing is saved before the first step, or right after a validation, whose checkpoint has the same
        state: Lightning would take a checkpoint of that step for one saved within the validation.
        """
        if index % trainer.accumulate_grad_batches:
            return
        due = time.monotonic() - self._saved > SAVE_SECONDS
        self._agreed, due = self._agree(trainer, self._asked, due)
        if (self._agreed or due) and index % trainer.val_check_batch:
            self._save(trainer)
        if self._agreed:
            sys.exit(EXIT_CODE)

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Exit before an incomplete validation is scored."""
        self.validation_left = self._any_asked(trainer)
        if self.validation_left:
            if trainer.global_step < trainer.max_steps:
                self._save(trainer)
            sys.exit(EXIT_CODE)
        self._saved = time.monotonic()  # the checkpoint of this validation comes next

    def on_test_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Exit before an incomplete test is scored."""
        if self._any_asked(trainer):
            sys.exit(EXIT_CODE)

    def _any_asked(self, trainer: Trainer) -> bool:
        """Whether any process got a signal. Every process must call this."""
        (self._agreed,) = self._agree(trainer, self._asked)
        return self._agreed > 0

    def _agree(self, trainer: Trainer, *own: int) -> list[int]:
        """The largest of each number in all processes. Every process must call this."""
        if trainer.world_size == 1:
            return [*own]
        numbers = torch.tensor(own, device=trainer.strategy.root_device)
        return trainer.strategy.reduce(numbers, reduce_op="max").tolist()

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.run.checkpoint_path("last"), weights_only=False)
        self._saved = time.monotonic()

    def state_dict(self) -> dict[str, bool]:  # noqa: D102
        return {"validation_left": self.validation_left}

    def load_state_dict(self, state_dict: dict[str, bool]) -> None:  # noqa: D102
        self.validation_left = state_dict["validation_left"]


def _requeue(signum: signal.Signals, previous: Mapping[signal.Signals, Any]) -> None:
    if callable(previous[signum]):
        previous[signum](signum, None)
    elif job := os.environ.get("SLURM_JOB_ID"):
        if "SLURM_ARRAY_JOB_ID" in os.environ:
            job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        subprocess.run(["scontrol", "requeue", job])
