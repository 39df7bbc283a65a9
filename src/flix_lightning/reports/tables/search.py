"""A search: every trial's validation scores, the best of each method first."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from flix_lightning.reports.render import Column, Report, Section, Table
from flix_lightning.runs.run import Run


def table(runs: Sequence[Run]) -> Report:
    """The settings of each trial and the validation scores of its selected checkpoints, best first."""
    trials, tasks = defaultdict(list), []
    for run in runs:
        scores = run.validation_scores()
        tasks, average = list(scores), fmean(scores.values())
        settings = (f"{run.cfg.optimizer.learning_rate:g}", f"{run.cfg.flix.dropout}", f"{run.cfg.seed}")
        line = (*settings, *(f"{score:.1f}" for score in scores.values()), f"{average:.2f}")
        trials[run.method].append((average, line))
    sections = [
        Section(method, tuple(line for _, line in sorted(found, reverse=True)))
        for method, found in trials.items()
    ]
    heads = ("Learning rate", "Dropout", "Seed", *tasks, "Average")
    note = "Validation scores of seen datasets on 0-100, macro averages over languages; best trial first."
    return Report((Table("Search", tuple(map(Column, heads)), tuple(sections), (note,)),))
