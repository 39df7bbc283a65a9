"""A search: every trial's validation scores, the best of each method first, and the trials that follow.

The rule is the same for every method, and was written down before any run of FLix on version 2 of the
built-in benchmark (docs/benchmark.md).
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
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

Setting = tuple[float, str]  # learning rate, and dropout as it is shown


def table(runs: Sequence[Run]) -> Report:
    """The settings of each trial and the validation scores of its selected checkpoints, best first."""
    trials, tasks = defaultdict(list), []
    averages: dict[str, dict[Setting, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        scores = run.validation_scores()
        tasks, average = list(scores), fmean(scores.values())
        rate, dropout = run.cfg.optimizer.learning_rate, f"{run.cfg.flix.dropout}"
        settings = (f"{rate:g}", dropout, f"{run.cfg.seed}")
        line = (*settings, *(f"{score:.1f}" for score in scores.values()), f"{average:.2f}")
        trials[run.method].append((average, line))
        averages[run.method][rate, dropout][run.cfg.seed] = average
    sections = [
        Section(method, tuple(line for _, line in sorted(found, reverse=True)))
        for method, found in trials.items()
    ]
    heads = ("Learning rate", "Dropout", "Seed", *tasks, "Average")
    note = "Validation scores of seen datasets on 0-100, macro averages over languages; best trial first."
    following = (f"{method}: {next_trial(found)}" for method, found in averages.items())
    return Report((Table("Search", tuple(map(Column, heads)), tuple(sections), (note, *following)),))


def next_trial(found: Mapping[Setting, Mapping[int, float]]) -> str:
    """Say which trial of a method follows, or which setting is chosen.

    On the first seed, `TRIALS` are made. Each that follows those of the sweep has the dropout of the best so
    far, and the rate of LADDER that is nearest to the best and was not tried; of two as near, the lower. Then
    the best `FINALISTS` are tried with all seeds, and the one with the best mean is chosen.
    """
    first = {setting: scores[SEEDS[0]] for setting, scores in found.items() if SEEDS[0] in scores}
    ranked = sorted(first, key=first.get, reverse=True)
    if ranked and len(ranked) < TRIALS:
        best, dropout = ranked[0]
        untried = [rate for rate in LADDER if (rate, dropout) not in first]
        # Rates of LADDER are rounded, so their distances are too.
        nearest = min(untried, key=lambda rate: (round(2 * abs(math.log2(rate / best))), rate))
        return f"next, learning rate {nearest:g} with dropout {dropout}, seed {SEEDS[0]}"
    finalists = ranked[:FINALISTS]
    for rate, dropout in finalists:
        if left := [str(seed) for seed in SEEDS if seed not in found[rate, dropout]]:
            return f"next, learning rate {rate:g} with dropout {dropout}, seeds {', '.join(left)}"
    if not finalists:
        return f"next, the trials of its sweep on seed {SEEDS[0]}"
    rate, dropout = max(finalists, key=lambda setting: fmean(found[setting][seed] for seed in SEEDS))
    return f"chosen, learning rate {rate:g} with dropout {dropout}"
