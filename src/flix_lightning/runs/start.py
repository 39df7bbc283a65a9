"""The run that another one starts from: a new language on an old checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from flix_lightning.adapter.projection import Adapter
from flix_lightning.common.errors import UserError
from flix_lightning.common.files import sha256
from flix_lightning.runs import checkpoints
from flix_lightning.runs.folder import RunFolder, read_config


@dataclass(frozen=True)
class Start:
    """The adapter of an earlier run, which a run goes on from with all of its features and perhaps more.

    Attributes:
        run: the earlier run's folder.
        checkpoint: the file that its adapter is read from.
        model: the earlier run's `model` settings.
        ranks: "kind:name" -> rank of every feature that it has.
        trained: "new", where these features stay as they are, or "all".
    """

    run: Path
    checkpoint: Path
    model: DictConfig
    ranks: Mapping[str, int]
    trained: str

    @classmethod
    def resolve(cls, cfg: DictConfig) -> "Start | None":
        """Find what the config's `start` names, if it names a run.

        Raises:
            UserError: no such run or checkpoint.
        """
        if cfg.run is None:
            return None
        run = Path(cfg.run)
        folder = RunFolder(run)
        names = sorted(path.stem for path in folder.checkpoints.glob("*.ckpt"))
        if not names or not folder.config.exists():
            raise UserError(f"start.run={run}: no run; a folder with config.yaml and checkpoints/ is needed")
        if cfg.checkpoint not in names:
            raise UserError(
                f"start.run={run} has no checkpoint {cfg.checkpoint}; start.checkpoint= is one of "
                + ", ".join(names)
            )
        checkpoint, model = folder.checkpoint(cfg.checkpoint), read_config(folder.config).model
        return cls(run, checkpoint, model, checkpoints.read(checkpoint)["ranks"], cfg.train)

    @property
    def frozen(self) -> list[str]:
        """The features that stay as they are, bit for bit."""
        return list(self.ranks) if self.trained == "new" else []

    @property
    def deciding(self) -> list[str]:
        """What of it decides a run's result: the checkpoint's content, not its place, and what is trained."""
        return [sha256(self.checkpoint), self.trained]

    def extended(self, ranks: Mapping[str, int]) -> dict[str, int]:
        """Give its features, then those of `ranks` that it lacks.

        Raises:
            UserError: a feature of another rank; none that it lacks, where only new ones are trained.
        """
        for feature, rank in ranks.items():
            if (had := self.ranks.get(feature, rank)) != rank:
                raise UserError(
                    f"start.run={self.run} has {feature} at rank {had}, and flix.ranks gives it {rank}: "
                    "they must agree"
                )
        if self.trained == "new" and not any(rank for name, rank in ranks.items() if name not in self.ranks):
            raise UserError(
                f"start.run={self.run} has every feature of this run, so that start.train=new leaves none to "
                "train: take start.train=all"
            )
        return {**self.ranks, **ranks}

    def load(self, adapter: Adapter) -> None:
        """Load its rows into an adapter of the `extended` features; the new features' stay as they are.

        Raises:
            UserError: it has other projections, naming what differs.
        """
        try:
            adapter.load_features(checkpoints.read(self.checkpoint)["adapter"], self.ranks, self.ranks)
        except UserError as error:
            raise UserError(f"start.run={self.run}: {error}") from error
