"""FLix against each LoRA in the columns of a table, and language by language."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flix_lightning.reports.dashboard.available import Held
from flix_lightning.reports.tables import lite, table1, table2
from flix_lightning.reports.tables.differences import Difference, by_language, differences
from flix_lightning.reports.tables.methods import PAPER_ROWS
from flix_lightning.reports.tables.scores import ScoreColumn, Scores

OURS = "FLix"

#: The tables that compare methods, the first of them that is there first, with their columns.
COLUMNS = {"table1": table1.COLUMNS, "lite": lite.COLUMNS, "table2": table2.COLUMNS}

AHEAD, OPEN, BEHIND = "ahead", "not told apart", "behind"


@dataclass(frozen=True)
class Against:
    """FLix minus one baseline.

    Attributes:
        baseline: the method.
        average: over the columns.
        columns: head -> the difference, in the table's order.
        languages: language -> head -> (FLix's score, the baseline's), means over the seeds of both.
    """

    baseline: str
    average: Difference
    columns: Mapping[str, Difference]
    languages: Mapping[str, Mapping[str, tuple[float, float]]]

    def heads(self, verdict: str) -> list[str]:
        """The columns of that verdict."""
        return [head for head, found in self.columns.items() if _verdict(found) == verdict]

    @property
    def verdict(self) -> str:
        """That of the average."""
        return _verdict(self.average)


@dataclass(frozen=True)
class Comparison:
    """A table of methods as differences.

    Attributes:
        held: the table.
        columns: its columns that have scores.
        against: each baseline that the table has runs of, on columns and languages that FLix has too.
    """

    held: Held
    columns: Sequence[ScoreColumn]
    scores: Scores
    against: Sequence[Against]

    @property
    def reach(self) -> float:
        """The largest mean, or end of an interval over languages, of any column: where lines end."""
        found = [one for against in self.against for one in (*against.columns.values(), against.average)]
        ends = [end for one in found for end in (one.mean or 0, *(one.over_languages or ()))]
        return _largest(ends)

    @property
    def widest(self) -> float:
        """The largest difference of any language: where colours end."""
        rows = [row for against in self.against for row in against.languages.values()]
        return _largest(ours - theirs for row in rows for ours, theirs in row.values())


def _largest(numbers: Iterable[float]) -> float:
    """The largest absolute value, or 1, so that it can be divided by."""
    return max(map(abs, numbers), default=0) or 1


def comparisons(held: Mapping[str, Held]) -> list[Comparison]:
    """Each table of methods that has two to compare."""
    found = [_comparison(held[name], columns) for name, columns in COLUMNS.items() if name in held]
    return [one for one in found if one.against]


def _comparison(held: Held, columns: Sequence[ScoreColumn]) -> Comparison:
    scores = Scores(columns, held.runs)
    against = [_against(scores, baseline) for baseline in PAPER_ROWS if baseline != OURS]
    return Comparison(
        held,
        [column for column in columns if scores.languages(column)],
        scores,
        [one for one in against if one.languages],
    )


def _against(scores: Scores, baseline: str) -> Against:
    *columns, average = differences(scores, OURS, baseline)
    heads = [column.head for column in scores.columns]
    languages: dict[str, dict[str, tuple[float, float]]] = {}
    for column in scores.columns:
        for language, pair in by_language(scores, column, OURS, baseline).items():
            languages.setdefault(language, {})[column.head] = pair
    there = {head: one for head, one in zip(heads, columns, strict=True) if one.mean is not None}
    return Against(baseline, average, there, languages)


def _verdict(found: Difference) -> str:
    """Ahead or behind where every interval that there is says so; one seed has no interval over seeds."""
    intervals = [one for one in (found.over_seeds, found.over_languages) if one]
    if intervals and all(low > 0 for low, _ in intervals):
        return AHEAD
    if intervals and all(high < 0 for _, high in intervals):
        return BEHIND
    return OPEN
