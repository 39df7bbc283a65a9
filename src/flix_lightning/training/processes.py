"""The processes of one run: how many it needs, what started them, and which one leads."""

import os
import re
from dataclasses import dataclass
from typing import Any

from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch.strategies import Strategy
from omegaconf import DictConfig

from flix_lightning.common.errors import UserError

#: Variables that Lightning sets for the processes that it starts, or that a user sets for each by hand.
_BY_HAND = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK")

#: Variables that torchrun and srun set for each process. Only all of them together mean a launch.
_TORCHRUN = ("TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "GROUP_RANK", "LOCAL_RANK")
_SRUN = ("STEP_TASKS_PER_NODE", "STEP_NODELIST", "STEP_ID", "JOB_ID", "NODEID", "LOCALID")


@dataclass(frozen=True)
class _Launch:
    """What a launcher did: how many processes it started on each node, and the place of this one.

    `node` is the index of this process's node, and `local` that of the process on this node.
    """

    launcher: str
    per_node: list[int]
    node: int
    local: int


@dataclass(frozen=True)
class _Needed:
    """The processes that a script needs: `devices` on each of `nodes`. Its settings begin with `section`."""

    devices: int
    nodes: int
    script: str
    section: str

    @property
    def processes(self) -> int:
        return self.devices * self.nodes

    def refusal(self, started: str, first: bool = True) -> UserError | SystemExit:
        """Return the error with the right commands for the first process, and an exit for the others."""
        if not first:
            return SystemExit(0)
        needs = f"{self.section}devices={self.devices}"
        if self.section:
            needs += f" and {self.section}num_nodes={self.nodes}"
        several = "es" * (self.processes > 1)
        return UserError(f"{needs}: {self.processes} process{several} needed, and {started}: {self._right()}")

    def _right(self) -> str:
        if self.processes == 1:
            return f"start `python {self.script} …` without torchrun, or ask for more {self.section}devices"
        rendezvous = "--standalone"
        if self.nodes > 1:
            rendezvous = f"--nnodes={self.nodes} --rdzv-backend=c10d --rdzv-endpoint=FIRST_NODE:29500"
        return (
            f"start `srun --nodes={self.nodes} --ntasks-per-node={self.devices} python {self.script} …`, or "
            f"`torchrun {rendezvous} --nproc-per-node={self.devices} {self.script} …`"
            f"{' on each node' * (self.nodes > 1)}"
        )


class RunEnvironment(LightningEnvironment):
    """The place of this process among the processes of its run, as Lightning asks for it.

    Lightning's own environments take the number of processes from the launcher. This one takes it from the
    run's settings, so that a launcher's variables count only for a run on several devices.

    Args:
        devices, nodes: what the run asks for.
        node, local: index of this process's node, and of the process on that node.
        all_started: whether all processes are running already; otherwise Lightning starts the others.
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
        """Keep the environment's variables, which Lightning would delete: a sweep has more runs."""

    def share(self, strategy: Strategy, verdict: Any) -> Any:
        """Return the leading process's verdict in all processes, after Lightning has started the others.

        It can be anything that can be pickled. The `verdict` of the other processes does not count.
        """
        if self.world_size() == 1 or (verdict and not self._all_started):
            return verdict
        strategy.launcher.launch(lambda: None)
        self._all_started = True
        strategy.setup_environment()
        return strategy.broadcast(verdict)


def run_environment(cfg: DictConfig, script: str = "train.py", section: str = "trainer.") -> RunEnvironment:
    """Find this process's place in its run.

    Args:
        cfg: has `accelerator`, `devices`, and `num_nodes` where the script can use several.
        script, section: for errors: the command, and what stands before these settings in it.

    Raises:
        UserError: Lightning refuses the devices, or they do not fit what srun or torchrun started.
        SystemExit: they do not fit, in every process but the first, which raises the error.
    """
    nodes = cfg.get("num_nodes", 1)
    try:
        environment = [RunEnvironment()]
        fabric = Fabric(
            accelerator=cfg.accelerator, devices=cfg.devices, num_nodes=nodes, plugins=environment
        )
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"Lightning refuses {section}accelerator or {section}devices: {error}") from error
    needed = _Needed(fabric.world_size // nodes, nodes, script, section)
    launch = _launch()
    if launch is None:
        return _without_launcher(needed)
    if launch.per_node == [needed.devices] * nodes:
        return RunEnvironment(needed.devices, nodes, launch.node, launch.local, all_started=True)
    if needed.processes == 1 and launch.launcher == "srun":  # each process of srun does its own run
        return RunEnvironment()
    started = f"{launch.launcher} started {'+'.join(map(str, launch.per_node))}"
    raise needed.refusal(started, first=launch.node == launch.local == 0)


def _without_launcher(needed: _Needed) -> RunEnvironment:
    by_hand = [os.environ.get(name) for name in _BY_HAND]
    if needed.processes > 1 and all(by_hand) and all(one.isdecimal() for one in by_hand[2:]):
        world, node, local = map(int, by_hand[2:])
        if world != needed.processes:
            raise needed.refusal(f"WORLD_SIZE is {world}", first=node == local == 0)
        return RunEnvironment(needed.devices, needed.nodes, node, local, all_started=True)
    if needed.nodes > 1:
        raise needed.refusal("one was started")
    return RunEnvironment(needed.devices)


def _launch() -> _Launch | None:
    env = os.environ
    if all(name in env for name in _TORCHRUN):
        per_node = [int(env["LOCAL_WORLD_SIZE"])] * int(env["GROUP_WORLD_SIZE"])
        return _Launch("torchrun", per_node, int(env["GROUP_RANK"]), int(env["LOCAL_RANK"]))
    # A batch script or an allocation, outside of srun, has one process and no step. A shell is a step that
    # SLURM names `bash`, or that the user names `interactive`.
    by_srun = all(f"SLURM_{name}" in env for name in _SRUN)
    if not by_srun or env.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    env.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(env["SLURM_STEP_NODELIST"]))
    # Steps of one job may run side by side.
    port = 15000 + (7 * int(env["SLURM_JOB_ID"]) + int(env["SLURM_STEP_ID"])) % 15000
    env.setdefault("MASTER_PORT", str(port))
    tasks = re.findall(r"(\d+)(?:\(x(\d+)\))?", env["SLURM_STEP_TASKS_PER_NODE"])  # as in 2(x3),1
    per_node = [int(count) for count, times in tasks for _ in range(int(times or 1))]
    return _Launch("srun", per_node, int(env["SLURM_NODEID"]), int(env["SLURM_LOCALID"]))
