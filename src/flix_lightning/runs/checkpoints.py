"""Checkpoint files: written whole, read with care, and still known when their folder was moved."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from flix_lightning.adapter.features import FeatureSpace
from flix_lightning.common.errors import UserError
from flix_lightning.common.files import atomic_file

_KEYS = {"adapter", "ranks", "global_step", "seen_without", "seconds", "loops", "pytorch-lightning_version"}
_KEYS_TO_GO_ON = _KEYS | {"callbacks", "lr_schedulers", "optimizer_states"}


def read(path: Path, to_go_on: bool = False) -> dict[str, Any]:
    """Read a checkpoint, without running any code that it may hold.

    Its tensors stay in the file until they are used, and of a pool only the rows that are.

    Args:
        path: the file.
        to_go_on: whether training is to go on from it, which takes more than the adapter.

    Raises:
        UserError: it is not there, broken, or of something else.
    """
    cure = f"delete {path.parent} to train anew"
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever the pickle and zip readers make of a broken file
        raise UserError(f"{path}: no readable checkpoint ({type(error).__name__}); {cure}") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: no checkpoint of FLix but a {type(checkpoint).__name__}; {cure}")
    if lacking := sorted((_KEYS_TO_GO_ON if to_go_on else _KEYS) - checkpoint.keys()):
        raise UserError(f"{path}: no checkpoint of FLix, as it lacks {', '.join(lacking)}; {cure}")
    if fault := _fault(checkpoint["ranks"], checkpoint["adapter"]):
        raise UserError(f"{path}: {fault}; {cure}")
    return checkpoint


def _fault(ranks: Any, pools: Any) -> str | None:
    """Say what keeps these from being an adapter's ranks and pools, if anything does."""
    if not isinstance(ranks, dict) or not isinstance(pools, dict):
        return "its ranks or pools are no mapping"
    try:
        rows = FeatureSpace(ranks).total_rank
    except (UserError, AttributeError) as error:  # this for a name that is no text
        return str(error)
    for key, pool in pools.items():
        name, _, letter = str(key).rpartition(".")
        if letter not in ("A", "B") or not {f"{name}.A", f"{name}.B"} <= pools.keys():
            return f"{key!r} is not one of a pair of pools"
        if not isinstance(pool, torch.Tensor) or pool.ndim != 2 or len(pool) != rows:
            return f"{key} is no pool of {rows} rows, as its ranks have it"
    return None


class BestCheckpoint(ModelCheckpoint):
    """Knows its scores again, and in a run's folder that was moved too, where Lightning's own starts anew."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the scores, and the file that has the best, in the folder where it is now."""
        path = str(Path(self.dirpath) / Path(state_dict["best_model_path"]).name)
        places = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path}
        super().load_state_dict(
            {**state_dict, **places, "best_k_models": {path: state_dict["best_model_score"]}}
        )
        self.current_score = state_dict["current_score"]


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints whole or not at all; Lightning's own are copied into place from another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        """Write one; raises UserError where `write_atomic` does."""
        with atomic_file(Path(path)) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # in which torch wraps what the disk said
                raise error.__context__ if isinstance(error.__context__, OSError) else error from None
