"""One line of a table minus another, paired by seed, language and example, with its intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from flix_lightning.reports.columns import ScoreColumn
from flix_lightning.reports.intervals import bootstrap, resampled_sums, t_half_width
from flix_lightning.reports.paper import DASH
from flix_lightning.reports.tables.scores import Scores
from flix_lightning.runs.rows import Row
from flix_lightning.runs.run import Run
from flix_lightning.tasks.metrics import get_metric

Interval = tuple[float, float]
Scored = tuple[Run, Row]

VERDICTS = "ahead", "not told apart", "behind"


@dataclass(frozen=True)
class Difference:
    """A line's score minus another's, in points of 0-100; None where the runs do not say it.

    Attributes:
        by_seed: for each seed of both.
        over_languages: 95 % interval of a paired bootstrap over languages and their examples; None where the
            lines were tested on other examples.
    """

    by_seed: Sequence[float]
    over_languages: Interval | None

    @property
    def mean(self) -> float | None:
        """The mean over the seeds that both lines have."""
        return fmean(self.by_seed) if self.by_seed else None

    @property
    def over_seeds(self) -> Interval | None:
        """The 95 % t-interval over the seeds, if there are two or more."""
        return self.interval_over_seeds(0.95)

    def interval_over_seeds(self, confidence: float) -> Interval | None:
        """The t-interval over the seeds, if there are two or more."""
        if len(self.by_seed) < 2:
            return None
        half = t_half_width(self.by_seed, confidence)
        return self.mean - half, self.mean + half

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`: ahead or behind where every interval that there is says so."""
        intervals = [one for one in (self.over_seeds, self.over_languages) if one]
        if intervals and all(low > 0 for low, _ in intervals):
            return VERDICTS[0]
        return VERDICTS[2] if intervals and all(high < 0 for _, high in intervals) else VERDICTS[1]


def differences(scores: Scores, ours: str, other: str) -> list[Difference]:
    """Line `ours` minus line `other` in every column, and last on their average."""
    groups = [_resampled(scores, column, ours, other) for column in scores.columns]
    over_languages = [bootstrap([group]) if len(group) else None for group in groups]
    over_languages.append(bootstrap(groups) if all(map(len, groups)) else None)
    found = []
    for left, right, interval in zip(scores.line(ours), scores.line(other), over_languages, strict=True):
        paired = [left[seed] - right[seed] for seed in left if seed in right]
        found.append(Difference(paired, interval))
    return found


def told_apart(found: Mapping[str, Sequence[Difference]], heads: Sequence[str]) -> list[str]:
    """Say which differences remain with Bonferroni's correction for their number: one note, or none.

    Args:
        found: line -> its difference in every column, and on the average.
        heads: the columns' names, and the average's.
    """
    tested = {
        f"{line} in {head}": one
        for line, differences in found.items()
        for head, one in zip(heads, differences, strict=True)
        if len(one.by_seed) > 1
    }
    if not tested:
        return []
    intervals = {name: one.interval_over_seeds(1 - 0.05 / len(tested)) for name, one in tested.items()}
    remaining = [name for name, (low, high) in intervals.items() if low > 0 or high < 0]
    correction = f"Over seeds, corrected for their number ({len(tested)}, Bonferroni)"
    return [f"{correction}, these differences exclude 0: {', '.join(remaining) or 'none'}."]


def unpaired(scores: Scores, minus: Mapping[str, str]) -> list[str]:
    """Say which lines were tested on other examples than the line that they are compared with.

    Args:
        minus: line -> the line that it is subtracted from.
    """
    notes = []
    for other, ours in minus.items():
        heads = [
            one.head for one in scores.columns if not _same_examples(_paired_rows(scores, one, ours, other))
        ]
        if heads:
            notes.append(
                f"{other} and {ours} were tested on other examples in {', '.join(heads)}: their difference "
                "has no interval over languages there."
            )
    return notes


def by_language(scores: Scores, column: ScoreColumn, ours: str, other: str) -> dict[str, tuple[float, float]]:
    """Language -> the two lines' scores there, means over the seeds that have both."""
    found = {}
    for language in scores.languages(column):
        by_seed = [
            [scores.by_language(column, line, seed).get(language) for line in (ours, other)]
            for seed in scores.seeds
        ]
        if pairs := [pair for pair in by_seed if None not in pair]:
            left, right = zip(*pairs, strict=True)
            found[language] = fmean(left), fmean(right)
    return found


def difference_lines(name: str, found: Sequence[Difference]) -> list[tuple[str, ...]]:
    """A line of differences for a table, with a line for each kind of interval below it."""
    return [
        (name, *(DASH if one.mean is None else f"{one.mean:+z.1f}" for one in found)),
        ("  over seeds", *(_interval(one.over_seeds) for one in found)),
        ("  over languages", *(_interval(one.over_languages) for one in found)),
    ]


def _resampled(scores: Scores, column: ScoreColumn, ours: str, other: str) -> NDArray[np.float64]:
    """`[languages, resamples]`: the difference on resampled examples, averaged over the seeds of both."""
    paired = _paired_rows(scores, column, ours, other)
    found = []
    for rows in paired if _same_examples(paired) else ():
        counts = np.array([[run.counts(row) for run, row in line] for line in rows])
        _, row = rows[0][0]
        left, right = get_metric(row.metric).score(resampled_sums(counts)).mean(axis=2).T
        found.append(left - right)
    return np.array(found)


def _paired_rows(scores: Scores, column: ScoreColumn, ours: str, other: str) -> list[list[list[Scored]]]:
    """For each language: the rows of both lines, on the seeds of both."""
    both = sorted(scores.by_seed(column, ours).keys() & scores.by_seed(column, other).keys())
    return [
        [[scores.rows(column, line, seed)[language] for seed in both] for line in (ours, other)]
        for language in (scores.languages(column) if both else ())
    ]


def _same_examples(paired: Sequence[Sequence[Sequence[Scored]]]) -> bool:
    """Whether all rows of each language are of the same examples; the targets tell."""
    return all(len({run.targets(row) for line in rows for run, row in line}) == 1 for rows in paired)


def _interval(ends: Interval | None) -> str:
    return DASH if ends is None else f"{ends[0]:+z.1f} to {ends[1]:+z.1f}"
