"""How checkpoints are saved while a run trains: whole files, and a best one for each selection."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from flix_lightning.common.files import atomic_file
from flix_lightning.runs.rows import mean_key
from flix_lightning.runs.run import Run


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint with the best mean validation score, and remembers it when the run is resumed.

    Lightning's ModelCheckpoint forgets its scores if the run's folder has moved.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the scores. The path of the best checkpoint is that in the run's present folder."""
        if not state_dict["best_model_path"]:  # saved before the first validation
            return
        path = str(Path(self.dirpath) / Path(state_dict["best_model_path"]).name)
        places = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path}
        super().load_state_dict(
            {**state_dict, **places, "best_k_models": {path: state_dict["best_model_score"]}}
        )
        self.current_score = state_dict["current_score"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint whole or not at all. Lightning's own may copy it from another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        """Write one checkpoint; raises UserError as `atomic_file` does."""
        with atomic_file(Path(path)) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch wraps the error of the disk
                raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def checkpoint_callbacks(run: Run) -> list[ModelCheckpoint]:
    """Return the callbacks that save the best checkpoint of each selection, and then the one for `last`.

    `last` is saved after the others, because it holds their scores.
    """
    options = {"dirpath": run.checkpoints, "enable_version_counter": False, "auto_insert_metric_name": False}
    tasks = dict.fromkeys(dataset.task for dataset in run.mixture.evaluate)
    best = [
        BestCheckpoint(
            monitor=mean_key("val", None if name == "best-average" else name.removeprefix("best-")),
            mode="max",
            filename=name,
            save_weights_only=True,
            **options,
        )
        for name in dict.fromkeys(map(run.selection, tasks))
    ]
    return [*best, ModelCheckpoint(filename="last", **options)]
