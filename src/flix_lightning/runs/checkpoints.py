"""Checkpoint files, read with care: no code in them is run, and what they hold is checked."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from flix_lightning.adapter.features import FeatureSpace
from flix_lightning.adapter.projection import require_finite
from flix_lightning.adapter.saving import find_fault
from flix_lightning.common.errors import UserError, did_you_mean, list_names

_KEYS = {"adapter", "ranks", "global_step", "seen_without", "seconds", "loops", "pytorch-lightning_version"}
_KEYS_TO_RESUME = _KEYS | {"callbacks", "lr_schedulers", "optimizer_states"}


@dataclass(frozen=True)
class Checkpoint:
    """The adapter in a checkpoint file. Its tensors stay in the file until they are used.

    Attributes:
        ranks: "kind:name" -> rank of every feature.
        pools: "<projection>.A" [R, d_in] and "<projection>.B" [R, d_out].
        step: optimizer step.
    """

    path: Path
    ranks: Mapping[str, int]
    pools: Mapping[str, Tensor]
    step: int

    @classmethod
    def read(cls, path: Path, *, to_resume: bool = False) -> "Checkpoint":
        """Read a checkpoint; for training to resume from it (`to_resume`), it needs more than the adapter.

        Raises:
            UserError: the file is missing, broken, or something else.
        """
        cure = f"delete {path.parent} to train anew"
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # whatever the pickle and zip readers make of a broken file
            raise UserError(f"{path}: no readable checkpoint ({type(error).__name__}); {cure}") from error
        if not isinstance(found, dict):
            raise UserError(f"{path}: no checkpoint of FLix but a {type(found).__name__}; {cure}")
        if lacking := sorted((_KEYS_TO_RESUME if to_resume else _KEYS) - found.keys()):
            raise UserError(f"{path}: no checkpoint of FLix, as it lacks {', '.join(lacking)}; {cure}")
        if fault := find_fault(found["ranks"], found["adapter"]):
            raise UserError(f"{path}: {fault}; {cure}")
        return cls(path, found["ranks"], found["adapter"], found["global_step"])

    def rank(self, features: Collection[str]) -> int:
        """Return the rank of these features together.

        Raises:
            UserError: a feature was never trained. It would add nothing, so its name is taken for a mistake.
        """
        trained = [feature for feature, rank in self.ranks.items() if rank]
        if unknown := [feature for feature in features if feature not in trained]:
            raise UserError(
                f"features: {unknown[0]} was never trained; {did_you_mean(unknown[0], trained)}"
                f"trained are {list_names(trained, 100)}"
            )
        return FeatureSpace(self.ranks).active_rank(features)

    def lora(self, features: Collection[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """Return each projection's A [r, d_in] and B [r, d_out] of these features.

        Raises:
            UserError: as `rank`; or a value is not finite.
        """
        self.rank(features)
        (index,) = FeatureSpace(self.ranks).rows([features]).index
        rows = {key: pool[index] for key, pool in self.pools.items()}
        require_finite(rows)
        names = sorted({key.rpartition(".")[0] for key in rows})
        return {name: (rows[f"{name}.A"], rows[f"{name}.B"]) for name in names}
