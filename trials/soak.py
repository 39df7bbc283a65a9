"""Do small runs in one process, back to back, and check that it does not grow: `make soak MINUTES=60`.

The trial is one multirun of `train.py` with all loggers, over as many seeds as the time allows. After each
run a line about the process goes to `soak.jsonl` in the output, and the run's folder is deleted.
"""

import argparse
import json
import runpy
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
from scipy.stats import theilslopes

from flix_lightning.common.cli import hydra_main
from trials.small import REPOSITORY, SMALL, make_output

#: Most memory that one run may add, KiB. Hydra keeps the config of every job until the sweep ends, 211 KiB. A
#: base model that is not freed has 22 MiB. With 512 KiB, all of the paper's 109 runs add 55 MiB.
KIB_A_RUN = 512
#: Share of the runs that is ignored: the first runs fill caches and memory pools.
WARM_UP = 0.2
#: Smallest number of runs, however short the time.
RUNS = 3


class _TimeIsUp(BaseException):
    """Ends a multirun, which would go on after an Exception."""


def main() -> int:
    """Do the runs, and report whether memory, open files or threads grow.

    Returns:
        0 if none grows, else 1.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, help="a new folder; by default outputs/soak, emptied")
    options = parser.parse_args()
    output = make_output(options.out, "soak")
    lines = output / "soak.jsonl"
    _soak(output, lines, options.minutes * 60)
    return report([json.loads(line) for line in lines.read_text().splitlines()])


def _soak(output: Path, lines: Path, seconds: float) -> None:
    train = runpy.run_path(str(REPOSITORY / "train.py"))["main"]
    start = time.monotonic()

    def job(cfg):
        train(cfg)
        for folder in (output / "runs").iterdir():
            shutil.rmtree(folder)
        elapsed = time.monotonic() - start
        with lines.open("a") as file:
            file.write(json.dumps({"minutes": round(elapsed / 60, 2), **_usage()}) + "\n")
        if elapsed > seconds and cfg.seed + 1 >= RUNS:
            raise _TimeIsUp

    seeds = f"seed=range(0,{RUNS + round(seconds)})"  # more than can be done: a run takes over a second
    sys.argv = ["train.py", "-m", *SMALL, seeds, f"output={output}", "hydra.sweeper.max_batch_size=10"]
    with suppress(_TimeIsUp):
        hydra_main(job)


def _usage() -> dict[str, float]:
    """Measure this process, and the memory of the process that W&B starts beside it."""
    process = psutil.Process()
    children = process.children(recursive=True)
    return {
        "rss_mib": round(process.memory_info().rss / 2**20, 2),
        "children_rss_mib": round(sum(child.memory_info().rss for child in children) / 2**20, 2),
        "fds": process.num_fds(),
        "threads": process.num_threads(),
    }


def report(lines: list[dict[str, float]]) -> int:
    """Print the slope of each number over the runs; return 0 if all are flat, else 1."""
    kept = lines[round(WARM_UP * len(lines)) :]
    print(f"{len(lines)} runs in {lines[-1]['minutes']:.0f} minutes; the last {len(kept)} count")
    grows = False
    for name in ("rss_mib", "children_rss_mib", "fds", "threads"):
        values = [line[name] for line in kept]
        slope, _, low, high = theilslopes(values)
        growing = slope * 1024 > KIB_A_RUN if name.endswith("_mib") else slope > 0
        grows |= growing
        verdict = "GROWS" if growing else "flat"
        interval = f"{slope:+.3f} a run ({low:+.3f} to {high:+.3f})"
        print(f"{name:>16}: {values[0]:.1f} … {values[-1]:.1f}, {interval}: {verdict}")
    return int(grows)


if __name__ == "__main__":
    sys.exit(main())
