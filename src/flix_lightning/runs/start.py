"""The earlier run that a run starts from, as when a language is added to a trained adapter."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flix_lightning.adapter.projection import Adapter
from flix_lightning.common.errors import UserError
from flix_lightning.common.files import sha256
from flix_lightning.runs.checkpoints import Checkpoint


@dataclass(frozen=True)
class Start:
    """The adapter of an earlier run. The new run has all of its features, and perhaps more.

    Attributes:
        run: the earlier run's folder.
        checkpoint: its adapter.
        trained: "new", where its features stay as they are, or "all".
    """

    run: Path
    checkpoint: Checkpoint
    trained: str

    @property
    def frozen(self) -> list[str]:
        """The features that stay as they are, bit for bit."""
        return list(self.checkpoint.ranks) if self.trained == "new" else []

    @property
    def deciding(self) -> list[str]:
        """What decides the new run's result: the content of the checkpoint, and what is trained."""
        return [sha256(self.checkpoint.path), self.trained]

    def add_to(self, ranks: Mapping[str, int]) -> dict[str, int]:
        """Return the ranks of the earlier run's features, then those of new features in `ranks`.

        Raises:
            UserError: a feature has another rank; or none is new, where only new ones are trained.
        """
        earlier = self.checkpoint.ranks
        for feature, rank in ranks.items():
            if earlier.get(feature, rank) != rank:
                raise UserError(
                    f"start.run={self.run} has {feature} at rank {earlier[feature]}, and flix.ranks gives it "
                    f"{rank}: they must agree"
                )
        if self.trained == "new" and not any(rank for name, rank in ranks.items() if name not in earlier):
            raise UserError(
                f"start.run={self.run} has every feature of this run, so that start.train=new leaves none to "
                "train: take start.train=all"
            )
        return {**earlier, **ranks}

    def load_into(self, adapter: Adapter) -> None:
        """Load the earlier features' rows into an adapter; the rows of new features stay as they are.

        Raises:
            UserError: the adapter has other projections, naming what differs.
        """
        try:
            adapter.load_features(self.checkpoint.pools, self.checkpoint.ranks, self.checkpoint.ranks)
        except UserError as error:
            raise UserError(f"start.run={self.run}: {error}") from error
