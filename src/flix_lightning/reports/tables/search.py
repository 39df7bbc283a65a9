"""A search: every trial's validation scores, the best of each method first, and the trials that follow.

The rule is the same for every method, and was written down before any run of FLix on version 2 of the
built-in benchmark (docs/benchmark.md).
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from flix_lightning.reports.render import Column, Report, Section, Table
from flix_lightning.runs.run import Run

#: Learning rates that may be tried, each √2 times the one before.
LADDER = (
    *(1.25e-4, 1.75e-4, 2.5e-4, 3.5e-4, 5e-4, 7e-4, 1e-3, 1.4e-3, 2e-3, 2.8e-3, 4e-3, 5.6e-3, 8e-3),
    *(1.1e-2, 1.6e-2),
)
TRIALS = 12  # of a method on SEEDS[0]: the nine of its sweep, and three that follow from their scores
FINALISTS = 2  # settings of a method that the other seeds are tried with
SEEDS = (0, 1, 2)

Setting = tuple[float, float]  # learning rate, and the dropout of the features that are dropped


@dataclass(frozen=True)
class Next:
    """What follows in a search: trials of one setting, or, without seeds, the setting that is chosen."""

    rate: float
    dropout: float
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        setting = f"learning rate {self.rate:g} with dropout {self.dropout:g}"
        if not self.seeds:
            return f"chosen, {setting}"
        return f"next, {setting}, seed{'s' * (len(self.seeds) > 1)} {', '.join(map(str, self.seeds))}"


def table(runs: Sequence[Run]) -> Report:
    """The trials of a search by the rule of the built-in benchmark, and what follows for each method."""
    methods = dict.fromkeys(run.method for run in runs)
    by_method = {method: [run for run in runs if run.method == method] for method in methods}
    return trials(runs, [f"{method}: {next_trial(found)}" for method, found in by_method.items()])


def trials(runs: Sequence[Run], notes: Sequence[str] = ()) -> Report:
    """The settings of each trial and the validation scores of its selected checkpoints, best first."""
    by_method, tasks = defaultdict(list), []
    for run in runs:
        scores = run.validation_scores()
        tasks, average = list(scores), fmean(scores.values())
        settings = (f"{run.cfg.optimizer.learning_rate:g}", _dropout_text(run), f"{run.cfg.seed}")
        line = (*settings, *(f"{score:.1f}" for score in scores.values()), f"{average:.2f}")
        by_method[run.method].append((average, line))
    sections = [
        Section(method, tuple(line for _, line in sorted(found, reverse=True)))
        for method, found in by_method.items()
    ]
    heads = ("Learning rate", "Dropout", "Seed", *tasks, "Average")
    note = "Validation scores of seen datasets on 0-100, macro averages over languages; best trial first."
    return Report((Table("Search", tuple(map(Column, heads)), tuple(sections), (note, *notes)),))


def next_trial(runs: Sequence[Run]) -> Next:
    """Say which trial of a method follows its finished runs, or which setting is chosen.

    On the first seed, `TRIALS` are made. Each that follows those of the sweep has the dropout of the best so
    far, and the rate of LADDER that is nearest to the best and was not tried; of two as near, the lower. Then
    the best `FINALISTS` are tried with all seeds, and the one with the best mean is chosen.
    """
    found: dict[Setting, dict[int, float]] = defaultdict(dict)
    for run in runs:
        found[_setting(run)][run.cfg.seed] = fmean(run.validation_scores().values())
    first = {setting: scores[SEEDS[0]] for setting, scores in found.items() if SEEDS[0] in scores}
    ranked = sorted(first, key=first.get, reverse=True)
    if not ranked:  # trials of other seeds alone
        return Next(*next(iter(found)), SEEDS[:1])
    if len(ranked) < TRIALS:
        best, dropout = ranked[0]
        untried = [rate for rate in LADDER if (rate, dropout) not in first]
        # Rates of LADDER are rounded, so their distances are too.
        nearest = min(untried, key=lambda rate: (round(2 * abs(math.log2(rate / best))), rate))
        return Next(nearest, dropout, SEEDS[:1])
    finalists = ranked[:FINALISTS]
    for setting in finalists:
        if left := tuple(seed for seed in SEEDS if seed not in found[setting]):
            return Next(*setting, left)
    return Next(*max(finalists, key=lambda setting: fmean(found[setting][seed] for seed in SEEDS)), ())


def _setting(run: Run) -> Setting:
    dropout = run.cfg.flix.dropout
    # FLix-shared drops the features of all kinds alike, but for the shared one.
    dropped = max(dropout.values()) if isinstance(dropout, Mapping) else dropout
    return run.cfg.optimizer.learning_rate, dropped


def _dropout_text(run: Run) -> str:
    dropout = run.cfg.flix.dropout
    kinds = dropout.items() if isinstance(dropout, Mapping) else [("", dropout)]
    text = ", ".join(f"{kind} {rate:g}".strip() for kind, rate in kinds)
    return f"{text}, rescaled" if run.cfg.flix.get("rescale") else text
