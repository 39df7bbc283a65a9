"""Do small runs in one process, back to back, and see whether it grows: `make soak MINUTES=60`.

It is one multirun of `train.py`, of as many seeds as the time allows, with every logger on. After each run
a row of what the process holds goes to `soak.jsonl` in the output, and the run's folder is deleted.
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
from trials.small import REPOSITORY, SMALL, fresh

#: What a run may leave behind in memory, KiB: Hydra keeps the config of every job until the sweep ends, 211
#: of them, while a base model that is not let go is 22 MiB. All of the paper, 108 runs, then adds 54 MiB.
KIB_A_RUN = 512

#: Share of the runs that is not looked at: the first ones fill caches, and memory pools find their size.
WARM_UP = 0.2

#: So few runs at least, however short the time.
RUNS = 3


class _TimeIsUp(BaseException):
    """Ends a multirun, which goes on after an error."""


def main() -> int:
    """Do the runs, and print and return whether memory, files or threads grow: 0 if none does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--output", type=Path, help="a new folder; by default outputs/soak, emptied")
    given = parser.parse_args()
    output = fresh(given.output, "soak")
    rows = output / "soak.jsonl"
    _soak(output, rows, given.minutes * 60)
    return report([json.loads(line) for line in rows.read_text().splitlines()])


def _soak(output: Path, rows: Path, seconds: float) -> None:
    train = runpy.run_path(str(REPOSITORY / "train.py"))["train"]
    began = time.monotonic()

    def job(cfg):
        train(cfg)
        for folder in (output / "runs").iterdir():
            shutil.rmtree(folder)
        passed = time.monotonic() - began
        with rows.open("a") as file:
            file.write(json.dumps({"minutes": round(passed / 60, 2), **_held()}) + "\n")
        if passed > seconds and cfg.seed + 1 >= RUNS:
            raise _TimeIsUp

    seeds = f"seed=range(0,{RUNS + round(seconds)})"  # as a run takes more than a second
    sys.argv = ["train.py", "-m", *SMALL, seeds, f"output={output}", "hydra.sweeper.max_batch_size=10"]
    with suppress(_TimeIsUp):
        hydra_main(job)


def _held() -> dict[str, float]:
    """What this process holds, and the one that W&B starts beside it."""
    process = psutil.Process()
    children = process.children(recursive=True)
    return {
        "rss_mib": round(process.memory_info().rss / 2**20, 2),
        "children_rss_mib": round(sum(child.memory_info().rss for child in children) / 2**20, 2),
        "fds": process.num_fds(),
        "threads": process.num_threads(),
    }


def report(rows: list[dict[str, float]]) -> int:
    """Print the slope of each number over the runs; return 0 if all are flat, else 1."""
    kept = rows[round(WARM_UP * len(rows)) :]
    print(f"{len(rows)} runs in {rows[-1]['minutes']:.0f} minutes, the last {len(kept)} of them looked at")
    grows = 0
    for name in ("rss_mib", "children_rss_mib", "fds", "threads"):
        values = [row[name] for row in kept]
        slope, _, lowest, highest = theilslopes(values)
        growing = slope * 1024 > KIB_A_RUN if name.endswith("_mib") else slope > 0
        grows += growing
        verdict = "GROWS" if growing else "flat"
        interval = f"{slope:+.3f} a run ({lowest:+.3f} to {highest:+.3f})"
        print(f"{name:>16}: {values[0]:.1f} … {values[-1]:.1f}, {interval}: {verdict}")
    return int(grows > 0)


if __name__ == "__main__":
    sys.exit(main())
