"""One method minus another, paired by seed, language and example, with its intervals."""

from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from flix_lightning.reports.intervals import bootstrap, resampled_sums, t_half_width
from flix_lightning.reports.tables.scores import DASH, ScoreColumn, Scores
from flix_lightning.tasks.metrics import METRICS


@dataclass(frozen=True)
class Difference:
    """A method's score minus another's, in points of 0-100; None where the runs do not say it.

    Attributes:
        mean: over the seeds of both.
        over_seeds: 95 % t-interval of two seeds or more.
        over_languages: 95 % interval of a paired bootstrap over languages and their examples.
    """

    mean: float | None
    over_seeds: tuple[float, float] | None
    over_languages: tuple[float, float] | None


def differences(scores: Scores, method: str, baseline: str) -> list[Difference]:
    """`method` minus `baseline` in every column, and last on their average."""
    groups = [_resampled(scores, column, method, baseline) for column in scores.columns]
    over_languages = [bootstrap([group]) if len(group) else None for group in groups]
    over_languages.append(bootstrap(groups) if all(map(len, groups)) else None)
    found = []
    pairs = zip(scores.line(method), scores.line(baseline), over_languages, strict=True)
    for ours, theirs, interval in pairs:
        paired = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        half = t_half_width(paired) if len(paired) > 1 else None
        over_seeds = None if half is None else (fmean(paired) - half, fmean(paired) + half)
        found.append(Difference(fmean(paired) if paired else None, over_seeds, interval))
    return found


def by_language(
    scores: Scores, column: ScoreColumn, method: str, baseline: str
) -> dict[str, tuple[float, float]]:
    """Language -> the two methods' scores there, means over the seeds that have both."""
    found = {}
    for language in scores.languages(column):
        by_seed = [
            tuple(scores.by_language(column, name, seed).get(language) for name in (method, baseline))
            for seed in scores.seeds
        ]
        if paired := [pair for pair in by_seed if None not in pair]:
            ours, theirs = zip(*paired, strict=True)
            found[language] = fmean(ours), fmean(theirs)
    return found


def lines(scores: Scores, method: str, baseline: str) -> list[tuple[str, ...]]:
    """`method` minus `baseline` in every column and on the average, with a line for each kind of interval."""
    found = differences(scores, method, baseline)
    return [
        (baseline, *(DASH if one.mean is None else f"{one.mean:+z.1f}" for one in found)),
        ("  over seeds", *(_interval(one.over_seeds) for one in found)),
        ("  over languages", *(_interval(one.over_languages) for one in found)),
    ]


def _resampled(scores: Scores, column: ScoreColumn, method: str, baseline: str) -> NDArray[np.float64]:
    """`[languages, resamples]`: the difference on resampled examples, averaged over the seeds of both."""
    both = sorted(scores.by_seed(column, method).keys() & scores.by_seed(column, baseline).keys())
    found = []
    for language in scores.languages(column) if both else ():
        rows = [[scores.rows(column, name, seed)[language] for seed in both] for name in (method, baseline)]
        counts = np.array([[scores.counts(row) for row in runs] for runs in rows])
        ours, theirs = METRICS[rows[0][0].metric].score(resampled_sums(counts)).mean(axis=2).T
        found.append(ours - theirs)
    return np.array(found)


def _interval(ends: tuple[float, float] | None) -> str:
    return DASH if ends is None else f"{ends[0]:+z.1f} to {ends[1]:+z.1f}"
