"""Do a sweep on a SLURM of two nodes, and compare its rows with those of one process: `make cluster`.

Each of the two runs has a process on each node. One job gets the signal of a preemption and is requeued; the
other is cancelled. The sweep is called again: that job reaches its time limit, is requeued, and resumes. The
SLURM is started on this machine, which needs root and Debian's packages (see slurm.sh).

Each job waits at one step of its first start until its signal comes. So the trial needs no particular speed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from trials.small import REPOSITORY, SMALL, make_output

OWN = [
    "seed=0,1",
    "trainer.max_steps=30",
    "evaluation.every=15",
    "flix.controls=[]",
    "model.dtype=float64",  # sums of two processes round otherwise than those of one
    "trainer.precision=64-true",
    "+trainer.callbacks=[{_target_:trials.cluster.Hold}]",
]
ON_SLURM = [
    "trainer.num_nodes=2",
    "hydra/launcher=slurm",
    "hydra.launcher.gpus_per_node=null",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=4",
]
NOT_FINISHED = 3  # exit code
Found = TypeVar("Found")


class Hold(Callback):
    """Holds the first start of a SLURM job after the first validation, until a signal asks it to leave."""

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:  # noqa: D102
        first_start = "SLURM_JOB_ID" in os.environ and "SLURM_RESTART_COUNT" not in os.environ
        if first_start and trainer.global_step > trainer.val_check_batch and not module.leaving:
            print("held until a signal comes", flush=True)
            while not module.leaving:
                time.sleep(0.1)


def main() -> int:
    """Do both sweeps.

    Returns:
        0 if the rows are equal and each job was interrupted as planned, 1 if not, 3 if a run did not finish.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a new folder; by default outputs/cluster, emptied")
    parser.add_argument("--minutes", type=float, default=60, help="longest wait for one step of the trial")
    parser.add_argument("overrides", nargs="*", help="more overrides of the runs")
    given = parser.parse_args()
    if not shutil.which("slurmctld"):
        sys.exit("no slurmctld: apt-get install the packages that trials/slurm.sh names")
    here = make_output(given.out, "cluster")
    alone, swept = here / "alone", here / "cluster"

    with _sweep(alone, given.overrides) as sweep:
        wait(given.minutes, "the sweep of one process", lambda: _ended(sweep))
    preempted, cancelled = _runs(alone)
    with _slurm(here / "slurm"):
        start = time.monotonic()
        with _sweep(swept, [*given.overrides, *ON_SLURM, "hydra.launcher.timeout_min=1440"]) as sweep:
            for run, signal in ((preempted, ["--signal=USR2"]), (cancelled, [])):
                job = wait(
                    given.minutes, f"the first validation of {run}", lambda run=run: _held(sweep, swept, run)
                )
                subprocess.run(["scancel", *signal, job], check=True)
                print(f"job {job} was {'signalled' if signal else 'cancelled'}", flush=True)
            # SLURM signals up to a minute earlier than asked. A start has at least twice its time.
            limit = 2 + ceil((time.monotonic() - start) / 30)
            wait(given.minutes, f"the end of the requeued {preempted}", lambda: _ended(sweep))
        print(f"the sweep is called again, with a time limit of {limit} minutes", flush=True)
        limits = [f"hydra.launcher.timeout_min={limit}", "hydra.launcher.signal_delay_s=60"]
        with _sweep(swept, [*given.overrides, *ON_SLURM, *limits]) as sweep:
            wait(given.minutes, f"the end of {cancelled}", lambda: _ended(sweep))
    logs = "".join(path.read_text() for path in swept.glob("hydra/*/.submitit/*/*_log.*"))
    counts = {run: logs.count(f"{run}: interrupted; call again") for run in (preempted, cancelled)}
    verdicts = {run: verdict(alone / "runs" / run, swept / "runs" / run) for run in counts}
    for run, count in counts.items():
        print(f"{run}: interrupted {count}x, {verdicts[run]}")
    if "not finished" in verdicts.values():
        print(f"the reason is in {swept / 'log'} and {swept / 'hydra'}")
        return NOT_FINISHED
    return int(set(verdicts.values()) != {"rows equal"} or counts[preempted] < 1 or counts[cancelled] < 2)


def wait(minutes: float, what: str, find: Callable[[], Found]) -> Found:
    """Call `find` until it returns something true, and return that; exit after too many minutes.

    Requeued jobs start at once meanwhile, not after SLURM's two minutes.

    Args:
        minutes: the longest wait.
        what: the thing waited for, for the message.
        find: is called about once a second.
    """
    deadline = time.monotonic() + 60 * minutes
    while not (found := find()):
        if time.monotonic() > deadline:
            print(f"not finished: waited {minutes:g} minutes for {what}; --minutes allows more", flush=True)
            sys.exit(NOT_FINISHED)
        if "SLURM_CONF" in os.environ:
            pending = subprocess.run(
                ["squeue", "-h", "-t", "PD", "-o", "%i"], stdout=subprocess.PIPE, text=True
            )
            for job in pending.stdout.split():
                subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], capture_output=True)
        time.sleep(1)
    return found


def verdict(alone: Path, swept: Path) -> str:
    """Compare the result rows and predictions of one run, but not the row of its seconds."""
    if not (swept / "results.jsonl").exists():
        return "not finished"
    return "rows equal" if _rows(alone) == _rows(swept) else "rows differ"


def _rows(run: Path) -> list[str]:
    files = [run / "results.jsonl", *sorted(run.glob("predictions/*/*/*.jsonl"))]
    return [line for path in files for line in path.open() if '"metric": "seconds"' not in line]


@contextmanager
def _sweep(output: Path, overrides: Sequence[str]) -> Iterator[subprocess.Popen]:
    """Start a sweep, and end it where the trial gives up."""
    output.mkdir(exist_ok=True)
    command = [sys.executable, "train.py", "-m", *SMALL, *OWN, f"output={output}", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    environment |= {"MASTER_ADDR": "127.0.0.1"}  # no resolver knows node1
    with (output / "log").open("a") as log:
        sweep = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
    try:
        yield sweep
    finally:
        sweep.kill()


def _ended(sweep: subprocess.Popen) -> bool:
    return sweep.poll() is not None


def _runs(sweep: Path) -> list[str]:
    """Names of the finished runs of a sweep, by seed."""
    runs = sorted(path.parent.name for path in sweep.glob("runs/*/results.jsonl"))
    if len(runs) != 2:
        sys.exit(f"the sweep failed: {sweep / 'log'}")
    return runs


def _held(sweep: subprocess.Popen, output: Path, run: str) -> str | None:
    """Return the id of a run's job once it is held."""
    if _ended(sweep):
        sys.exit(f"the sweep failed: {output / 'log'}")
    for folder in output.glob("hydra/*/.submitit/*/"):
        log = "".join(path.read_text() for path in folder.glob("*_log.*"))
        if f"{run}: validating" in log and "held until" in log:
            return folder.name
    return None


@contextmanager
def _slurm(folder: Path) -> Iterator[None]:
    script = str(REPOSITORY / "trials" / "slurm.sh")
    try:
        if subprocess.run(["bash", script, "start", folder]).returncode:
            sys.exit(f"SLURM does not start: {folder / 'log'}")
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        yield
    finally:
        subprocess.run(["bash", script, "stop", folder])


if __name__ == "__main__":
    sys.exit(main())
