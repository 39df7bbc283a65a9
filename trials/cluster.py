"""Do a sweep on a SLURM of two nodes, and compare its rows with those of one process: `make cluster`.

Each of the two runs has a process on each node. One job gets the signal of a preemption and is requeued; the
other is cancelled. The sweep is called again, with a time limit that is too short: the job is requeued and
resumes until it is done. The SLURM is started on this machine, which needs root and Debian's packages (see
slurm.sh). Processes are slowed down, so that the jobs end at the same points on any machine.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.callbacks import Callback

from trials.small import REPOSITORY, SMALL, make_output

OWN = [
    "seed=0,1",
    "trainer.max_steps=30",
    "evaluation.every=15",
    "flix.controls=[]",
    "model.dtype=float64",  # sums of two processes round otherwise than those of one
    "trainer.precision=64-true",
    "+trainer.callbacks=[{_target_:trials.cluster.Slow}]",
]
ON_SLURM = [
    "trainer.num_nodes=2",
    "hydra/launcher=slurm",
    "hydra.launcher.gpus_per_node=null",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=4",
]
LIMIT = 1200  # seconds to wait for anything


class Slow(Callback):
    """Waits in each training step for the seconds that the environment says."""

    def on_train_batch_end(self, *_: object) -> None:  # noqa: D102
        time.sleep(float(os.environ.get("SLOW", 0)))


def main() -> int:
    """Do both sweeps; return 0 if their rows are equal and every job met what it was to meet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="a new folder; by default outputs/cluster, emptied")
    parser.add_argument("overrides", nargs="*", help="more overrides of the runs")
    given = parser.parse_args()
    if not shutil.which("slurmctld"):
        sys.exit("no slurmctld: apt-get install the packages that trials/slurm.sh names")
    here = make_output(given.output, "cluster")
    alone, swept = here / "alone", here / "cluster"
    _sweep(alone, given.overrides).wait(LIMIT)
    with _slurm(here / "slurm"):
        sweep = _sweep(swept, [*given.overrides, *ON_SLURM, "hydra.launcher.timeout_min=60"], slow=1)
        preempted, cancelled = _runs(alone)
        first, second = _begun(swept, preempted), _begun(swept, cancelled)
        subprocess.run(["scancel", "--signal=USR2", first], check=True)
        subprocess.run(["scancel", second], check=True)
        print(f"job {first} was signalled, job {second} cancelled", flush=True)
        _wait(sweep)
        limit = ["hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=45"]
        sweep = _sweep(swept, [*given.overrides, *ON_SLURM, *limit], slow=3)
        _wait(sweep)
    logs = "".join(path.read_text() for path in swept.glob("hydra/*/.submitit/*/*_log.*"))
    counts = {run: logs.count(f"{run}: interrupted; call again") for run in (preempted, cancelled)}
    differing = [run for run in counts if _rows(alone / "runs" / run) != _rows(swept / "runs" / run)]
    for run, count in counts.items():
        print(f"{run}: interrupted {count} times, rows {'differ' if run in differing else 'equal'}")
    return int(bool(differing) or counts[preempted] < 1 or counts[cancelled] < 2)


def _sweep(output: Path, overrides: Sequence[str], slow: float = 0) -> subprocess.Popen:
    output.mkdir(exist_ok=True)
    command = [sys.executable, "train.py", "-m", *SMALL, *OWN, f"output={output}", *overrides]
    environment = {**os.environ, "SLOW": str(slow), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    environment |= {"MASTER_ADDR": "127.0.0.1"}  # no resolver knows node1
    with (output / "log").open("a") as log:
        return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)


def _wait(sweep: subprocess.Popen) -> None:
    """Wait for the end of a sweep's jobs. A requeued one starts at once, not after SLURM's two minutes."""
    deadline = time.monotonic() + LIMIT
    while sweep.poll() is None and time.monotonic() < deadline:
        pending = subprocess.run(["squeue", "-h", "-t", "PD", "-o", "%i"], stdout=subprocess.PIPE, text=True)
        for job in pending.stdout.split():
            subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], capture_output=True)
        time.sleep(2)


def _runs(sweep: Path) -> list[str]:
    """Names of the finished runs of a sweep, by seed."""
    runs = sorted(path.parent.name for path in sweep.glob("runs/*/results.jsonl"))
    if len(runs) != 2:
        sys.exit(f"the sweep failed: {sweep / 'log'}")
    return runs


def _begun(sweep: Path, run: str) -> str:
    """Wait for the first validation of a run that is a job of its own; return the job's id."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        for log in sweep.glob("hydra/*/.submitit/*/*_log.*"):
            if f"{run}: validating" in log.read_text():
                return log.parent.name
        time.sleep(0.5)
    sys.exit(f"{run} does not begin: {sweep / 'log'}")


def _rows(run: Path) -> list[str]:
    """Result rows and predictions of a run, without the row of its seconds."""
    files = [run / "results.jsonl", *sorted(run.glob("predictions/*/*/*.jsonl"))]
    if not files[0].exists():
        return []
    return [line for path in files for line in path.open() if '"metric": "seconds"' not in line]


@contextmanager
def _slurm(folder: Path) -> Iterator[None]:
    script = str(REPOSITORY / "trials" / "slurm.sh")
    subprocess.run(["bash", script, "start", folder], check=True)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        yield
    finally:
        subprocess.run(["bash", script, "stop", folder])


if __name__ == "__main__":
    sys.exit(main())
