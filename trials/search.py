"""Search a method's learning rate and dropout by the rule of docs/benchmark.md, to its end.

    python -m trials.search METHOD [KEY=VALUE …]    METHOD is a choice of conf/flix; KEY=VALUE as for train.py

Trains the trials of the method's sweep, then each trial that follows from their scores, until a setting is
chosen. Interrupted, the same command goes on. Several methods can be searched at once, by a command each.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from flix_lightning.common import cli
from flix_lightning.common.errors import UserError
from flix_lightning.reports import render
from flix_lightning.reports.tables import search
from flix_lightning.runs.run import Run, resolve_all
from trials.small import REPOSITORY

SWEEPS = {
    "flix": "search_flix",
    "flix_shared": "search_flix",
    "compute_matched": "search_lora",
    "param_matched": "search_lora",
}
SEARCHED = ("flix", "seed", "optimizer.learning_rate", "flix.dropout", "data.feature_dropout")


def main(arguments: list[str]) -> int:
    """Train trial after trial; print and save the table of all.

    Returns:
        0, or the exit code of a trial that failed.

    Raises:
        UserError: the first argument is no method of a search, another one sets what is searched, or another
            process is training one of the trials.
    """
    method, *overrides = arguments or [""]
    if method not in SWEEPS:
        raise UserError(f"{method!r}: a method is needed, one of {', '.join(SWEEPS)}")
    if fixed := [one for one in overrides if one.partition("=")[0].lstrip("+") in SEARCHED]:
        raise UserError(f"{fixed[0]}: the search sets {', '.join(SEARCHED)}; leave it out")
    common = [f"+sweeps={SWEEPS[method]}", f"flix={method}", *overrides]
    trial, runs = [], []
    while True:
        done = subprocess.run([sys.executable, str(REPOSITORY / "train.py"), "-m", *common, *trial])
        if done.returncode:
            return done.returncode
        runs += trained([*common, *trial])
        following = search.next_trial(runs)
        if not following.seeds:
            break
        seeds = ",".join(map(str, following.seeds))
        trial = [f"optimizer.learning_rate={following.rate:g}", f"seed={seeds}"]
        if SWEEPS[method] == "search_flix":
            trial.append(f"data.feature_dropout={following.dropout:g}")
    report = search.table(runs)
    render.save(report, Path(runs[0].cfg.output) / "tables", f"search_{method}")
    report.terminal(Console())
    return 0


def trained(arguments: Sequence[str]) -> list[Run]:
    """Return the runs of a multirun that has ended.

    Raises:
        UserError: one of them is not finished.
    """
    runs, _ = resolve_all(cli.sweep_configs(arguments))
    if left := [run.name for run in runs if not run.finished]:
        raise UserError(f"{left[0]}: another process trains this trial; wait for its end and start again")
    return runs


if __name__ == "__main__":
    cli.plain_main(main, __doc__)
