"""The processes of one run: how many it needs, who started them, which one leads."""

import os
import re
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch.strategies import Strategy
from omegaconf import DictConfig

from flix_lightning.common.errors import UserError

#: Variables that Lightning sets for the processes that it starts, or that a user sets for each by hand.
_BY_HAND = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK")


@dataclass(frozen=True)
class _Launch:
    """What a launcher did: processes started on each node, and where this one is among them."""

    launcher: str
    per_node: list[int]
    node: int
    local: int


class RunEnvironment(LightningEnvironment):
    """The place of this process among the processes of its run, as Lightning asks for it.

    Lightning's own environments take the number of processes from the launcher. Here it follows from the
    run's settings, so that a launcher's variables count only for a run on several devices.

    Args:
        devices, nodes: what the run asks for.
        node, local: index of this process's node, and of the process on that node.
        all_started: whether every process is running already; if not, Lightning starts the others.
    """

    def __init__(self, devices: int = 1, nodes: int = 1, node: int = 0, local: int = 0, all_started=False):
        super().__init__()
        self._node, self._local, self._all_started = node, local, all_started
        self.set_world_size(devices * nodes)
        self.set_global_rank(node * devices + local)  # also tells Lightning's `rank_zero_only`

    @property
    def leads(self) -> bool:
        """Whether this process locks the run's folder and writes into it."""
        return self.global_rank() == 0

    @property
    def creates_processes_externally(self) -> bool:  # noqa: D102
        return self._all_started

    def node_rank(self) -> int:  # noqa: D102
        return self._node

    def local_rank(self) -> int:  # noqa: D102
        return self._local

    def teardown(self) -> None:
        """Keep the environment's variables, which Lightning's own deletes: a sweep has another run."""

    def share(self, strategy: Strategy, verdict: Any) -> Any:
        """Return the leading process's verdict in all processes, once Lightning has started the others.

        Args:
            strategy: the trainer's.
            verdict: anything that can be pickled; it counts in the leading process only.
        """
        if self.world_size() == 1 or (verdict and not self._all_started):
            return verdict
        strategy.launcher.launch(lambda: None)
        self._all_started = True
        strategy.setup_environment()
        return strategy.broadcast(verdict)


def run_environment(cfg: DictConfig) -> RunEnvironment:
    """Find this process's place in its run.

    Args:
        cfg: the config's `trainer`.

    Raises:
        UserError: Lightning refuses the devices, or they do not fit what srun or torchrun started.
    """
    nodes = cfg.num_nodes
    try:
        environment = [RunEnvironment()]
        fabric = Fabric(
            accelerator=cfg.accelerator, devices=cfg.devices, num_nodes=nodes, plugins=environment
        )
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"Lightning refuses the settings under trainer: {error}") from error
    devices = fabric.world_size // nodes
    launch = _launch()
    if launch is None:
        return _without_launcher(devices, nodes)
    if launch.per_node == [devices] * nodes:
        return RunEnvironment(devices, nodes, launch.node, launch.local, all_started=True)
    if devices * nodes == 1 and launch.launcher == "srun":  # each task has its own run
        return RunEnvironment()
    raise UserError(
        f"{_asked(devices, nodes)}, and {launch.launcher} started {'+'.join(map(str, launch.per_node))}: "
        f"{_right(devices, nodes)}"
    )


def _without_launcher(devices: int, nodes: int) -> RunEnvironment:
    by_hand = [os.environ.get(name) for name in _BY_HAND]
    if devices * nodes > 1 and all(by_hand):
        world, node, local = map(int, by_hand[2:])
        if world != devices * nodes:
            raise UserError(f"{_asked(devices, nodes)}, and WORLD_SIZE is {world}: {_right(devices, nodes)}")
        return RunEnvironment(devices, nodes, node, local, all_started=True)
    if nodes > 1:
        raise UserError(f"{_asked(devices, nodes)}, and one was started: {_right(devices, nodes)}")
    return RunEnvironment(devices)


def _launch() -> _Launch | None:
    env = os.environ
    if torch.distributed.is_torchelastic_launched():
        per_node = [int(env["LOCAL_WORLD_SIZE"])] * int(env["GROUP_WORLD_SIZE"])
        return _Launch("torchrun", per_node, int(env["GROUP_RANK"]), int(env["LOCAL_RANK"]))
    # In a batch script or an allocation, outside of srun, there is one process and no step. SLURM calls the
    # step of a shell `bash`, or the user calls it `interactive`.
    if "SLURM_STEP_TASKS_PER_NODE" not in env or env.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    env.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(env["SLURM_STEP_NODELIST"]))
    # Steps of one job may run side by side.
    port = 15000 + (7 * int(env["SLURM_JOB_ID"]) + int(env["SLURM_STEP_ID"])) % 15000
    env.setdefault("MASTER_PORT", str(port))
    tasks = re.findall(r"(\d+)(?:\(x(\d+)\))?", env["SLURM_STEP_TASKS_PER_NODE"])  # as in 2(x3),1
    per_node = [int(count) for count, times in tasks for _ in range(int(times or 1))]
    return _Launch("srun", per_node, int(env["SLURM_NODEID"]), int(env["SLURM_LOCALID"]))


def _asked(devices: int, nodes: int) -> str:
    count = devices * nodes
    return f"trainer.devices={devices} and trainer.num_nodes={nodes} need {count} process{'es' * (count > 1)}"


def _right(devices: int, nodes: int) -> str:
    """Name the commands that start what is asked for."""
    if devices * nodes == 1:
        return "start `python train.py …` without torchrun, or ask for more trainer.devices"
    rendezvous = "--standalone"
    if nodes > 1:
        rendezvous = f"--nnodes={nodes} --rdzv-backend=c10d --rdzv-endpoint=FIRST_NODE:29500"
    return (
        f"start `srun --nodes={nodes} --ntasks-per-node={devices} python train.py …`, or "
        f"`torchrun {rendezvous} --nproc-per-node={devices} train.py …`{' on each node' * (nodes > 1)}"
    )
