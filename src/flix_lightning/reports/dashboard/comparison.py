"""FLix against each LoRA in the columns of a table, and language by language."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flix_lightning.reports.columns import METHODS, TABLE1, TABLE2, ScoreColumn
from flix_lightning.reports.dashboard.available import Available
from flix_lightning.reports.tables import lite
from flix_lightning.reports.tables.differences import Difference, by_language, differences
from flix_lightning.reports.tables.methods import by_method
from flix_lightning.reports.tables.scores import Scores

OURS = "FLix"

#: The tables that compare methods, with their columns. The page's answer is the first that is available.
_COLUMNS = {"table1": TABLE1, "lite": lite.COLUMNS, "table2": TABLE2}


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
        return [head for head, found in self.columns.items() if found.verdict == verdict]


@dataclass(frozen=True)
class Comparison:
    """A table of methods as differences.

    Attributes:
        table: the table.
        scores: its test scores by method.
        columns: its columns that have scores.
        against: each baseline that shares languages with FLix.
    """

    table: Available
    scores: Scores
    columns: Sequence[ScoreColumn]
    against: Sequence[Against]

    @property
    def reach(self) -> float:
        """The largest mean, or end of an interval over languages, of any column: where lines end."""
        found = [one for against in self.against for one in (*against.columns.values(), against.average)]
        return _largest(end for one in found for end in (one.mean or 0, *(one.over_languages or ())))

    @property
    def widest(self) -> float:
        """The largest difference of any language: where colours end."""
        pairs = (pair for one in self.against for row in one.languages.values() for pair in row.values())
        return _largest(ours - theirs for ours, theirs in pairs)


def comparisons(available: Mapping[str, Available]) -> list[Comparison]:
    """Each available table that compares FLix with a baseline."""
    found = []
    for name, columns in _COLUMNS.items():
        if table := available.get(name):
            scores = Scores(columns, by_method(table.runs, METHODS, {column.mixture for column in columns}))
            against = [_against(scores, method) for method in METHODS if method != OURS]
            scored = [column for column in columns if scores.languages(column)]
            found.append(Comparison(table, scores, scored, [one for one in against if one.languages]))
    return [one for one in found if one.against]


def _against(scores: Scores, baseline: str) -> Against:
    *found, average = differences(scores, OURS, baseline)
    languages: dict[str, dict[str, tuple[float, float]]] = {}
    for column in scores.columns:
        for language, pair in by_language(scores, column, OURS, baseline).items():
            languages.setdefault(language, {})[column.head] = pair
    heads = [column.head for column in scores.columns]
    columns = {head: one for head, one in zip(heads, found, strict=True) if one.mean is not None}
    return Against(baseline, average, columns, languages)


def _largest(numbers: Iterable[float]) -> float:
    """The largest absolute value; or 1 for 0, so that one can divide by it."""
    return max(map(abs, numbers), default=0) or 1
