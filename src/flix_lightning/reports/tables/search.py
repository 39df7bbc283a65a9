"""A search: every trial's validation scores, the best of each method first."""

from collections.abc import Sequence
from statistics import fmean

from flix_lightning.common.settings import plain
from flix_lightning.reports import render
from flix_lightning.reports.render import Report, Section, Table
from flix_lightning.reports.tables.scores import missing_runs
from flix_lightning.runs.run import Run


def table(runs: Sequence[Run], missing: Sequence[str] = ()) -> Report:
    """Each trial's settings and the validation scores of its selected checkpoints, best first.

    Args:
        runs: the trials of any methods.
        missing: names of the trials that are not there; the table is made without them and says so.
    """
    found: dict[str, list[tuple[float, tuple[str, ...]]]] = {}
    tasks: list[str] = []
    for run in runs:
        cfg = run.cfg
        scores = run.validation_scores()
        tasks = list(scores)
        average = fmean(scores.values())
        line = (
            f"{cfg.optimizer.learning_rate:g}",
            f"{plain(cfg.flix.dropout)}",
            f"{cfg.seed}",
            *(f"{score:.1f}" for score in scores.values()),
            f"{average:.2f}",
        )
        found.setdefault(run.method, []).append((average, line))
    sections = tuple(
        Section(method, tuple(line for _, line in sorted(trials, reverse=True)))
        for method, trials in found.items()
    )
    heads = ("Learning rate", "Dropout", "Seed", *tasks, "Average")
    note = "Validation scores of seen datasets on 0-100, macro averages over languages; best trial first."
    results = Table("Search", tuple(map(render.Column, heads)), sections, (note,))
    return Report((results,), missing_runs(missing))
