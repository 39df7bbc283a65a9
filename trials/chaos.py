"""Kill a small sweep with -9 at random moments; see whether it ends as an unbroken one does: `make chaos`.

Each kill is aimed at a phase, and comes a random time after the phase began; where it landed is read from
what the process left behind. The sweep is then called again, as a user would. Once all kills are spent it
may end, and every file of its runs must be that of the unbroken sweep, to the bit: rows, predictions, and
checkpoints with the weights, the optimizer and the scheduler. Apart are times, and what loggers wrote.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from trials.small import REPOSITORY, SMALL, fresh

#: Phase -> the line of the log or the file of a run that it begins with, and seconds that it may take.
PHASES = {
    "training": (r"step \d+ of", 1.0),
    "validation": ("validating at step", 0.5),
    "checkpoints": ("validations/*.jsonl", 0.1),
    "test": ("testing", 0.5),
    "results": ("*results.jsonl*", 0.002),  # their draft, or else what it became
    "between runs": ("results.jsonl", 1.0),
}
#: What is not compared: no part of the result, or named after a process.
LOGS = ("metrics", "wandb", ".lock")


def main() -> int:
    """Do both sweeps, and print and return whether their runs differ: 0 if no file does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, help="a new folder; by default outputs/chaos, emptied")
    given = parser.parse_args()
    output = fresh(given.output, "chaos")
    here = output / "sweep"  # of both sweeps, as checkpoints hold their path
    print(f"{given.kills} kills at the moments of seed {given.seed}", flush=True)
    seeds = _kill(here, given.kills, random.Random(given.seed))
    _end(_sweep(here, seeds), here)
    killed = here.rename(output / "killed")
    _end(_sweep(here, seeds), here)
    differing = different(killed, here)
    for path in differing:
        print(f"differs: {path}")
    runs = len(list(here.glob("runs/*/results.jsonl")))
    print(f"{runs} runs, {len(_files(killed, here))} files: {len(differing)} differ")
    return int(bool(differing))


def _kill(here: Path, kills: int, chance: random.Random) -> int:
    """Start the sweep and kill it, again and again; return how many seeds it took to spend all kills."""
    seeds, done = 1, 0
    while done < kills:
        if done % len(PHASES) == 0:
            order = chance.sample(list(PHASES), len(PHASES))
        phase = order[done % len(PHASES)]
        sign, longest = PHASES[phase]
        after = chance.uniform(0, longest)
        before = set(here.glob(f"runs/*/{sign}"))
        process = _sweep(here, seeds)
        while not _begun(here, sign, before) and process.poll() is None:
            time.sleep(0.001)
        time.sleep(after)
        process.kill()
        if _end(process, here) == -signal.SIGKILL:
            done += 1
            print(f"kill {done:2}, {after:.3f} s into {phase}: {_landed(here, process.pid)}", flush=True)
        else:
            seeds += 1
    return seeds


def _sweep(here: Path, seeds: int) -> subprocess.Popen:
    """Start two runs a seed, on one thread each."""
    here.mkdir(exist_ok=True)
    own = ["trainer.max_steps=12", "evaluation.every=5", "flix=flix,compute_matched", "flix.controls=[]"]
    command = [sys.executable, "train.py", "-m", *SMALL, *own, f"seed=range(0,{seeds})", f"output={here}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    with (here / "log").open("w") as log:
        return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)


def _end(process: subprocess.Popen, here: Path) -> int:
    """Wait for the sweep's end, by itself or by a kill; return its exit code."""
    code = process.wait()
    if code not in (0, -signal.SIGKILL):
        sys.exit(f"the sweep failed:\n{_log(here)}")
    return code


def _begun(here: Path, sign: str, before: set[Path]) -> bool:
    if "jsonl" in sign:
        return bool(set(here.glob(f"runs/*/{sign}")) - before)
    return bool(re.search(sign, _log(here)))


def _log(here: Path) -> str:
    return (here / "log").read_text()


def _landed(here: Path, pid: int) -> str:
    """What the process was at when it died."""
    if half := sorted(here.rglob(f".*.{pid}")):
        return f"writing {half[0].relative_to(here / 'runs')}"
    said = re.findall(r"(\S+-seed\d+-\w+): (step|validating at step|testing)(?: (\d+))?", _log(here))
    if not said:
        return "before its first step"
    run, doing, step = said[-1]
    folder = here / "runs" / run
    if (folder / "results.jsonl").exists():
        return f"{run} had its results"
    if doing == "testing":
        return f"{run} in test"
    if doing == "step":
        return f"{run} in training"
    validation, last = folder / f"validations/{int(step):06}.jsonl", folder / "checkpoints/last.ckpt"
    if not validation.exists():
        return f"{run} in validation at step {step}"
    if not last.exists() or last.stat().st_mtime < validation.stat().st_mtime:
        return f"{run} between checkpoints of step {step}"
    return f"{run} in training, after step {step}"


def different(one: Path, other: Path) -> list[Path]:
    """The files of two sweeps' runs that are not the same, or in one only, by their path below the sweep."""
    return [path for path in _files(one, other) if not _same(one / path, other / path)]


def _files(*sweeps: Path) -> list[Path]:
    """Every file of any of these sweeps' runs, by its path below the sweep."""
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
    # Only the row of how long the run took may differ.
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
