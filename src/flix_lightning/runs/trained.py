"""A finished run as it is taken up again: exported, asked for predictions, evaluated on other data."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from flix_lightning.common import settings
from flix_lightning.common.errors import UserError
from flix_lightning.models import base as models
from flix_lightning.models.base import Base
from flix_lightning.runs import checkpoints
from flix_lightning.runs import rows as results
from flix_lightning.runs.folder import RunFolder, read_config
from flix_lightning.runs.plan import given_or_made
from flix_lightning.runs.rows import Row

log = logging.getLogger(__name__)

#: What the settings of a command that takes a run up may be, and those that a command that generates adds.
TAKING_UP = {"run": settings.TEXT, "checkpoint": settings.nullable(settings.TEXT)}
GENERATING = {
    "batch_size": settings.nullable(settings.integer(1, 2**20)),
    "accelerator": settings.TEXT,
    "precision": settings.ANY,  # by Lightning
}


@dataclass(frozen=True)
class TrainedRun:
    """A finished run, of which nothing large is read yet.

    Attributes:
        folder: the run's.
        cfg: its resolved config.
        rows: its results.
    """

    folder: RunFolder
    cfg: DictConfig
    rows: Sequence[Row]

    @classmethod
    def open(cls, path: str | Path) -> "TrainedRun":
        """Take up the run in a folder, which may have been moved.

        Raises:
            UserError: no such run, or not finished, or not as it was written.
        """
        folder = RunFolder(path)
        if not folder.finished or not (rows := results.read(folder.results)):
            raise UserError(f"run={path}: no finished run; a folder with results.jsonl in it is needed")
        return cls(folder, read_config(folder.config), rows)

    @property
    def id(self) -> str:
        """The run's hash, whatever its folder is called now."""
        return self.rows[0].run

    def select(self, checkpoint: str | None, tasks: Collection[str]) -> str:
        """Give the name of the checkpoint to take.

        Args:
            checkpoint: the one that is asked for; None is what the first of `tasks` that has one was tested
                with, or the last where none was selected for them, which is said.
            tasks: what is to be done with it.

        Raises:
            UserError: no such checkpoint, naming those that are there.
        """
        there = sorted(self.folder.checkpoints.glob("*.ckpt"))
        if checkpoint is None:
            selections = (self.folder.best(one) for one in (*tasks, "average"))
            chosen = next((path for path in selections if path in there), None)
            if chosen is None and tasks:
                log.warning("no checkpoint was selected for %s, so the last is taken", ", ".join(tasks))
            checkpoint = (chosen or self.folder.last).stem
        names = [path.stem for path in there]
        if checkpoint not in names:
            raise UserError(
                f"{self.folder.checkpoints} has no {checkpoint}; checkpoint= is one of {', '.join(names)}"
            )
        return checkpoint

    def candidates(self, checkpoint: str | None) -> list[str]:
        """Give every name that `select` may give when asked for `checkpoint`; raises UserError as it does."""
        best = self.folder.checkpoints.glob(self.folder.best("*").name) if checkpoint is None else ()
        return list(dict.fromkeys([*sorted(path.stem for path in best), self.select(checkpoint, [])]))

    def checkpoint(self, name: str) -> dict[str, Any]:
        """Read a checkpoint; raises UserError as `checkpoints.read` does."""
        return checkpoints.read(self.folder.checkpoint(name))

    def base(self) -> Base:
        """Load the base model, with all of its vocabulary; raises UserError as `models.load` does."""
        model = self.cfg.model
        if model.vocabulary != "all":  # new texts have tokens that the run's data lacks
            log.warning("the run had model.vocabulary=data, and here it is all: answers may differ")
        return models.load(str(given_or_made(model.pretrained)), model.revision, model.dtype)
