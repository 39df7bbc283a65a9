import os
from unittest import mock

import pytest
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from flix_lightning.common.errors import UserError
from flix_lightning.training.processes import run_environment
from flix_lightning.training.sweep_check import check_launcher


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """No launcher's variables, and afterwards all as it was."""
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    with mock.patch.dict(os.environ):
        for name in list(os.environ):
            if name.startswith(("SLURM_", "MASTER_", "TORCHELASTIC_")) or name.endswith(
                ("RANK", "WORLD_SIZE")
            ):
                del os.environ[name]
        yield


def srun(per_node, node=0, local=0):
    """What srun sets for a task: `per_node` as in `2(x2)`."""
    names = {"STEP_TASKS_PER_NODE": per_node, "STEP_NODELIST": "gpu[3-4]", "NODEID": node, "LOCALID": local}
    names |= {"JOB_ID": 12, "STEP_ID": 0, "JOB_NAME": "train", "PROCID": 7, "NTASKS": 9}
    return {f"SLURM_{name}": str(value) for name, value in names.items()}


def torchrun(per_node, nodes=1, node=0, local=0):
    names = {"LOCAL_WORLD_SIZE": per_node, "GROUP_WORLD_SIZE": nodes, "GROUP_RANK": node, "LOCAL_RANK": local}
    names |= {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": per_node * nodes, "RANK": node * per_node + local}
    return {name: str(value) for name, value in names.items()}


def by_hand(world, node=0, local=0):
    names = {"WORLD_SIZE": world, "NODE_RANK": node, "LOCAL_RANK": local}
    return {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "x", "MASTER_PORT": "1"}


def environment(monkeypatch, variables, devices, nodes):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    cfg = {"accelerator": "cpu", "devices": devices, "num_nodes": nodes}
    return run_environment(OmegaConf.create(cfg))


# Variables, devices and nodes -> rank, processes, index on the node, whether all of them run already.
PLACES = [
    ({}, 1, 1, (0, 1, 0, False)),
    ({}, 2, 1, (0, 2, 0, False)),
    ({"RANK": "1", "LOCAL_RANK": "1"}, 1, 1, (0, 1, 0, False)),
    (
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"},
        1,
        1,
        (0, 1, 0, False),
    ),  # an allocation
    ({"TORCHELASTIC_RUN_ID": "none"}, 2, 1, (0, 2, 0, False)),  # a part of what a launcher sets
    ({"SLURM_STEP_TASKS_PER_NODE": "4"}, 2, 1, (0, 2, 0, False)),
    (srun("3", local=2), 1, 1, (0, 1, 0, False)),  # each task its own run
    (srun("2", local=1), 2, 1, (1, 2, 1, True)),
    (srun("2(x2)", node=1, local=1), 2, 2, (3, 4, 1, True)),
    (srun("1(x2)", node=1), 1, 2, (1, 2, 0, True)),
    (srun("1") | {"SLURM_JOB_NAME": "bash"}, 2, 1, (0, 2, 0, False)),  # a shell of srun's
    (torchrun(2, local=1), 2, 1, (1, 2, 1, True)),
    (torchrun(2, nodes=2, node=1), 2, 2, (2, 4, 0, True)),
    (torchrun(1), 1, 1, (0, 1, 0, True)),
    (by_hand(2, local=1), 2, 1, (1, 2, 1, True)),
    (by_hand(2, local=1), 1, 1, (0, 1, 0, False)),
    (by_hand("two"), 2, 1, (0, 2, 0, False)),
]


@pytest.mark.parametrize(("variables", "devices", "nodes", "expected"), PLACES)
def test_the_place_of_a_process(monkeypatch, variables, devices, nodes, expected):
    found = environment(monkeypatch, variables, devices, nodes)
    place = found.global_rank(), found.world_size(), found.local_rank(), found.creates_processes_externally
    assert place == expected
    assert rank_zero_only.rank == expected[0]
    assert found.leads == (expected[0] == 0)


REFUSED = [
    (srun("1"), 2, 1, "srun started 1:", "srun --nodes=1 --ntasks-per-node=2 python train.py"),
    (srun("4"), 2, 1, "srun started 4:", "srun --nodes=1 --ntasks-per-node=2 python train.py"),
    (srun("3,1"), 2, 2, r"srun started 3\+1:", "srun --nodes=2 --ntasks-per-node=2 python train.py"),
    (srun("2(x2)"), 4, 1, r"srun started 2\+2:", "torchrun --standalone --nproc-per-node=4 train.py"),
    (torchrun(2), 1, 1, "torchrun started 2:", "start `python train.py …` without torchrun"),
    (torchrun(2), 4, 1, "torchrun started 2:", "torchrun --standalone --nproc-per-node=4 train.py"),
    ({}, 2, 2, "one was started:", "torchrun --nnodes=2 .*--nproc-per-node=2 train.py …` on each node"),
    (by_hand(4), 2, 1, "WORLD_SIZE is 4:", "torchrun --standalone --nproc-per-node=2 train.py"),
    ({}, "two", 1, "Lightning refuses", "devices"),
]


@pytest.mark.parametrize(("variables", "devices", "nodes", "started", "right"), REFUSED)
def test_processes_that_do_not_fit_the_run_are_one_line(
    monkeypatch, variables, devices, nodes, started, right
):
    with pytest.raises(UserError, match=f"{started}.*{right}"):
        environment(monkeypatch, variables, devices, nodes)


@pytest.mark.parametrize("variables", [srun("4", local=1), torchrun(4, local=1), by_hand(4, local=1)])
def test_one_of_the_processes_refuses_for_all(monkeypatch, variables):
    with pytest.raises(SystemExit) as ended:
        environment(monkeypatch, variables, 2, 1)
    assert ended.value.code == 0


def test_the_first_node_is_met_at_a_port_of_the_step(monkeypatch):
    ports = set()
    for step in "01":
        with mock.patch.dict(os.environ):
            found = environment(monkeypatch, srun("2") | {"SLURM_STEP_ID": step}, 2, 1)
            assert found.main_address == "gpu3"
            ports.add(found.main_port)
    assert len(ports) == 2
    assert all(1024 < port < 65536 for port in ports)


def sweep(launcher, devices, num_nodes=1, **options):
    launcher = {"_target_": f"plugins.{launcher}", **options}
    trainer = {"devices": devices, "num_nodes": num_nodes}
    return OmegaConf.create({"trainer": trainer, "hydra": {"launcher": launcher}})


def test_a_sweep_is_refused_before_its_first_job(monkeypatch):
    check_launcher(sweep("BasicLauncher", 1))
    check_launcher(sweep("JoblibLauncher", 1))
    check_launcher(sweep("SlurmLauncher", 2, 3, tasks_per_node=2, nodes=3))
    for launcher in ("BasicLauncher", "JoblibLauncher"):
        with pytest.raises(UserError, match=r"torchrun --standalone --nproc-per-node=2 train.py -m"):
            check_launcher(sweep(launcher, 2))
    with pytest.raises(UserError, match=r"trainer.devices is 'auto'"):
        check_launcher(sweep("SlurmLauncher", "auto", tasks_per_node=1, nodes=1))
    with pytest.raises(UserError, match=r"tasks_per_node=1 .*trainer.devices=2"):
        check_launcher(sweep("SlurmLauncher", 2, tasks_per_node=1, nodes=1))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    check_launcher(sweep("BasicLauncher", 2))
