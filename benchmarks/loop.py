"""Where a run's CPU time goes: `python -m benchmarks.loop [overrides of train.py]`."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest import mock

import torch
from lightning import Trainer
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from omegaconf import DictConfig
from rich.console import Console

from flix_lightning.common.cli import hydra_main
from flix_lightning.models.generation import Generator
from flix_lightning.reports.render import Column, Report, Section, Table
from flix_lightning.training import module
from flix_lightning.training.train import train

#: Part of a run -> a class or module, and its function. A part is timed without the parts that it calls.
PARTS = {
    "training: forward": (module, "token_loss"),
    "training: backward": (torch.Tensor, "backward"),
    "training: optimizer": (torch.optim.AdamW, "step"),
    "training: all else": (Trainer, "fit"),
    "evaluation: generation": (Generator, "_generate"),
    "evaluation: all else": (_EvaluationLoop, "run"),
}
START = "start: data, base, configs"
IN_MODEL = ("training: forward", "training: backward", "evaluation: generation")


class Shares:
    """CPU seconds of each part, counted from the construction of this object."""

    def __init__(self):
        self._seconds: dict[str, float] = defaultdict(float)
        self._running, self._since = [START], time.process_time()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Time the parts in the body."""
        with ExitStack() as stack:
            for part, (owner, name) in PARTS.items():
                timed = self._timed(getattr(owner, name), part)
                stack.enter_context(mock.patch.object(owner, name, timed))
            yield

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each part until now, in the order of PARTS, the start first."""
        self._turn()
        return {part: self._seconds[part] for part in (START, *PARTS)}

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._turn()
            self._running.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._turn()
                self._running.pop()

        return timed

    def _turn(self) -> None:
        now = time.process_time()
        self._seconds[self._running[-1]] += now - self._since
        self._since = now


def table(seconds: dict[str, float]) -> Report:
    """Make the table of `Shares.seconds`."""
    total = sum(seconds.values())
    rows = tuple((part, f"{own:.1f}", f"{own / total:.1%}") for part, own in seconds.items())
    in_model = sum(seconds[part] for part in IN_MODEL)
    after = total - seconds[START]
    note = f"Forward, backward and generation: {in_model / after:.1%} of training and evaluation."
    columns = tuple(map(Column, ("", "CPU seconds", "share")))
    return Report((Table("Where the run's time went", columns, (Section("", rows),), (note,)),))


def timed_train(cfg: DictConfig) -> None:
    """Train a run as train.py does, and print where its time went."""
    shares = Shares()
    with shares.watch():
        train(cfg)
    table(shares.seconds()).terminal(Console())


if __name__ == "__main__":
    hydra_main(timed_train)
