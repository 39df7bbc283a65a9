"""The check of a sweep whose runs have several processes, before any job starts. It imports nothing slow."""

import os
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from flix_lightning.common.cli import errors_as_lines
from flix_lightning.common.errors import UserError


class SweepCheck(Callback):
    """Stops a multirun whose launcher does not start the processes that each run needs."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Check the launcher. Hydra ignores what a callback raises, so a fault ends the process here."""
        with errors_as_lines():
            check_launcher(config)


def check_launcher(config: DictConfig) -> None:
    """Raise UserError, naming a right command, unless Hydra's launcher starts the processes of each run."""
    devices, nodes = config.trainer.devices, config.trainer.num_nodes
    asked = f"trainer.devices={devices} and trainer.num_nodes={nodes}"
    launcher = config.hydra.launcher._target_.rpartition(".")[2]
    if launcher == "SlurmLauncher":
        if type(devices) is not int:
            raise UserError(
                f"trainer.devices is {devices!r}; SLURM starts one process for each device of a node, so "
                "their number is needed, as in trainer.devices=2"
            )
        tasks, job_nodes = config.hydra.launcher.tasks_per_node, config.hydra.launcher.nodes
        if (tasks, job_nodes) != (devices, nodes):
            raise UserError(
                f"hydra.launcher.tasks_per_node={tasks} and hydra.launcher.nodes={job_nodes}, but each run "
                f"has {asked}: leave the first two out, they follow from the last two"
            )
    elif devices != 1 or nodes != 1:
        by_launcher = {"TORCHELASTIC_RUN_ID", "SLURM_STEP_TASKS_PER_NODE"} & set(os.environ)
        if launcher != "BasicLauncher" or not by_launcher:
            raise UserError(
                f"{asked} in a multirun: start it by `torchrun --standalone --nproc-per-node={devices} "
                "train.py -m …`, or give hydra/launcher=slurm"
            )
