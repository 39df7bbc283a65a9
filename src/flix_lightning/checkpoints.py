"""Checkpoint files: written whole, read with care, and still known when their folder was moved."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from flix_lightning.errors import UserError
from flix_lightning.files import whole_file

_KEYS = {"adapter", "ranks", "global_step", "seen_without", "seconds", "loops", "pytorch-lightning_version"}


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint, without running any code that it may hold.

    Its tensors stay in the file until they are used, and of a pool only the rows that are.

    Raises:
        UserError: it is not there, broken, or of something else.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever the pickle and zip readers make of a broken file
        raise UserError(
            f"{path}: no readable checkpoint ({type(error).__name__}); delete {path.parent} to train anew"
        ) from error
    if not isinstance(checkpoint, dict) or not checkpoint.keys() >= _KEYS:
        raise UserError(f"{path}: no checkpoint of FLix; delete {path.parent} to train anew")
    return checkpoint


class BestCheckpoint(ModelCheckpoint):
    """Knows its best score again in a run's folder that was moved, where Lightning's own starts anew."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best score, and the file that has it, in the folder where it is now."""
        path = str(Path(self.dirpath) / Path(state_dict["best_model_path"]).name)
        places = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path}
        super().load_state_dict(
            {**state_dict, **places, "best_k_models": {path: state_dict["best_model_score"]}}
        )


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints whole or not at all; Lightning's own are copied into place from another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        """Write one; raises UserError where `write_whole` does."""
        with whole_file(Path(path)) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # in which torch wraps what the disk said
                raise error.__context__ if isinstance(error.__context__, OSError) else error from None
