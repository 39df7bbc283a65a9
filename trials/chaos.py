"""Interrupt a small sweep at random moments and check that its files do not change: `make chaos`.

The sweep is started; some random time after a phase begins, it gets a signal: SIGKILL, or one of the
signals by which clusters ask a job to leave. Half of the signals go to the process group, as from a cluster
or a terminal. Then the sweep is started again, as a user would. After the last interruption it may end.
Every file of its runs must equal that of an uninterrupted sweep, to the bit: result rows, predictions, and
checkpoints with weights, optimizer and scheduler. Only times and the loggers' files may differ.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from trials.small import REPOSITORY, SMALL, make_output

#: Phase -> what begins it (a pattern in the log, or of new files of a run), and its longest time in seconds.
PHASES = {
    "start": ("config.yaml", 2.0),  # loading, and the steps before the first validation
    "training": (r"step \d+ of", 1.0),
    "validation": ("validating at step", 0.5),
    "checkpoints": ("validations/*.jsonl", 0.1),
    "test": ("testing", 0.5),
    "results": ("*results.jsonl*", 0.002),  # the temporary file, or already the file
    "between runs": ("results.jsonl", 1.0),
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
LEFT = 128 + signal.SIGTERM  # exit code of a run that saved itself
#: Files that are not compared: they are no part of the result, or contain a process id.
LOGS = ("metrics", "wandb", ".lock")


def main() -> int:
    """Do both sweeps and compare their files.

    Returns:
        0 if no file differs, else 1.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="number of interruptions")
    parser.add_argument("--seed", type=int, default=0, help="of moments and signals")
    parser.add_argument("--out", type=Path, help="a new folder; by default outputs/chaos, emptied")
    options = parser.parse_args()
    output = make_output(options.out, "chaos")
    folder = output / "sweep"  # the same for both sweeps, as checkpoints contain their path
    print(f"{options.kills} interruptions, seed {options.seed}", flush=True)
    seeds = _interrupt(folder, options.kills, random.Random(options.seed))
    _wait(_start(folder, seeds), folder)
    interrupted = folder.rename(output / "interrupted")
    _wait(_start(folder, seeds), folder)
    differing = different(interrupted, folder)
    for path in differing:
        print(f"differs: {path}")
    runs = len(list(folder.glob("runs/*/results.jsonl")))
    print(f"{runs} runs, {len(_files(interrupted, folder))} files: {len(differing)} differ")
    return int(bool(differing))


def _interrupt(folder: Path, count: int, rng: random.Random) -> int:
    """Start the sweep and interrupt it, `count` times; return the number of seeds that the sweep needed."""
    seeds, done = 1, 0
    trials = _shuffled([(phase, number) for phase in PHASES for number in SIGNALS], rng)
    while done < count:
        phase, number = next(trials)
        begins_with, longest = PHASES[phase]
        delay, whole_group = rng.uniform(0, longest), rng.random() < 0.5
        before = set(folder.glob(f"runs/*/{begins_with}"))
        process = _start(folder, seeds)
        while not _begun(folder, begins_with, before) and process.poll() is None:
            time.sleep(0.001)
        time.sleep(delay)
        if process.poll() is None:
            (os.killpg if whole_group else os.kill)(process.pid, number)
        if _wait(process, folder, number) == 0:  # the sweep was finished before
            if len(list(folder.glob("runs/*/results.jsonl"))) < 2 * seeds:
                sys.exit(f"the sweep ended with exit code 0, but not all runs are finished:\n{_log(folder)}")
            seeds += 1
            continue
        done += 1
        name = signal.Signals(number).name + (" to the group" if whole_group else "")
        print(f"{done:2}: {name}, {delay:.3f} s into {phase}: {_landed(folder, process.pid)}", flush=True)
    return seeds


def _shuffled(items: list, rng: random.Random) -> Iterator:
    """Give each item once, in random order, again and again."""
    while True:
        yield from rng.sample(items, len(items))


def _start(folder: Path, seeds: int) -> subprocess.Popen:
    """Start a sweep of two runs a seed, on one thread, in a process group of its own."""
    folder.mkdir(exist_ok=True)
    own = ["trainer.max_steps=5", "flix=flix,compute_matched", "flix.controls=[]"]
    command = [sys.executable, "train.py", "-m", *SMALL, *own, f"seed=range(0,{seeds})", f"output={folder}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log, start_new_session=True
        )


def _wait(process: subprocess.Popen, folder: Path, number: int | None = None) -> int:
    """Wait for the sweep's end and return its exit code; exit unless it is 0 or what the signal calls for."""
    code = process.wait()
    expected = (0,) if number is None else (0, -number, LEFT)
    # A signal within a `__del__` is noted there, and Python prints that it ignores the exit.
    log = re.sub(r"Exception ignored in.*\nTraceback", "", _log(folder))
    if code not in expected or "Traceback" in log:
        sys.exit(f"the sweep failed with exit code {code}:\n{_log(folder)}")
    return code


def _begun(folder: Path, begins_with: str, before: set[Path]) -> bool:
    if "." in begins_with:
        return bool(set(folder.glob(f"runs/*/{begins_with}")) - before)
    return bool(re.search(begins_with, _log(folder)))


def _log(folder: Path) -> str:
    return (folder / "log").read_text()


def _landed(folder: Path, pid: int) -> str:
    """Say what the process was doing when it ended."""
    if unfinished := sorted(folder.rglob(f".*.{pid}")):
        return f"writing {unfinished[0].relative_to(folder / 'runs')}"
    logged = re.findall(r"(\S+-seed\d+-\w+): (step|validating at step|testing)(?: (\d+))?", _log(folder))
    if not logged:
        return "before its first step"
    run, doing, step = logged[-1]
    path = folder / "runs" / run
    if (path / "results.jsonl").exists():
        return f"{run} had its results"
    if doing == "testing":
        return f"{run} in test"
    if doing == "step":
        return f"{run} in training"
    validation, last = path / f"validations/{int(step):06}.jsonl", path / "checkpoints/last.ckpt"
    if not validation.exists():
        return f"{run} in validation at step {step}"
    if not last.exists() or last.stat().st_mtime < validation.stat().st_mtime:
        return f"{run} between checkpoints of step {step}"
    return f"{run} in training, after step {step}"


def different(one: Path, other: Path) -> list[Path]:
    """List the files of two sweeps' runs that differ or are in one only, by their paths below the sweep."""
    return [path for path in _files(one, other) if not _same(one / path, other / path)]


def _files(*sweeps: Path) -> list[Path]:
    """List every file of any of these sweeps' runs, by its path below the sweep."""
    found = {
        path.relative_to(sweep)
        for sweep in sweeps
        for path in (sweep / "runs").rglob("*")
        if path.is_file() and not set(LOGS) & set(path.relative_to(sweep).parts)
    }
    return sorted(found)


def _same(one: Path, other: Path) -> bool:
    if not (one.exists() and other.exists()):
        return False
    if one.suffix == ".ckpt":
        return _equal(*({**torch.load(path, weights_only=True), "seconds": None} for path in (one, other)))
    # The row of the run's duration may differ.
    timeless = [f"""<(grep -v '"metric": "seconds"' '{path}')""" for path in (one, other)]
    return subprocess.run(["bash", "-c", f"cmp {' '.join(timeless)}"]).returncode == 0


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other


if __name__ == "__main__":
    sys.exit(main())
