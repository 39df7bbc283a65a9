"""FLix against other lines in the columns of a table or of any runs, and language by language."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flix_lightning.reports.columns import METHODS, TABLE2, ScoreColumn
from flix_lightning.reports.dashboard.available import Available
from flix_lightning.reports.tables import comparison, table1
from flix_lightning.reports.tables.differences import Difference, by_language, differences
from flix_lightning.reports.tables.methods import by_method
from flix_lightning.reports.tables.scores import Scores
from flix_lightning.runs.run import Run

#: The tables that compare methods, with their columns. The page's answer is the first that is available.
_COLUMNS = {**table1.COLUMNS, "table2": TABLE2}


@dataclass(frozen=True)
class Against:
    """One line minus another.

    Attributes:
        ours: the line, mostly FLix.
        other: the line that is subtracted.
        average: over the columns.
        columns: head -> the difference, in the table's order.
        languages: language -> head -> (score of `ours`, of `other`), means over the seeds of both.
    """

    ours: str
    other: str
    average: Difference
    columns: Mapping[str, Difference]
    languages: Mapping[str, Mapping[str, tuple[float, float]]]

    def heads(self, verdict: str) -> list[str]:
        """The columns of that verdict."""
        return [head for head, found in self.columns.items() if found.verdict == verdict]


@dataclass(frozen=True)
class Comparison:
    """Lines of scores as differences.

    Attributes:
        table: the table or the comparison of any runs.
        scores: its test scores by line.
        columns: its columns that have scores.
        against: each pair of lines that share languages.
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


def of_tables(available: Mapping[str, Available]) -> list[Comparison]:
    """Each available table that compares FLix with a baseline."""
    found = []
    for name, columns in _COLUMNS.items():
        if table := available.get(name):
            scores = Scores(columns, by_method(table.runs, METHODS, {column.mixture for column in columns}))
            minus = dict.fromkeys((method for method in METHODS if method != "FLix"), "FLix")
            found.append(_comparison(table, scores, minus))
    return [one for one in found if one.against]


def of_any_runs(runs: Iterable[Run], available: Iterable[Available]) -> list[Comparison]:
    """The runs on each mixture that are more than the runs of one table.

    Mixtures whose runs differ in nothing but the seed are left out, unless there is nothing else to show.

    Raises:
        UserError: runs of the same settings and seed have other data or another base.
    """
    mixtures: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        mixtures[run.cfg.mixture.name].append(run)
    shown = [{run.id for run in table.runs} for table in available]
    found = []
    for mixture, group in mixtures.items():
        if any({run.id for run in group} <= ids for ids in shown):
            continue
        compared = comparison.Comparison.of(group)
        title = f"Runs trained on {mixture}"
        reports = {mixture: compared.report(title), f"{mixture}-languages": compared.languages_report()}
        found.append(_comparison(Available(mixture, group, reports), compared.scores, compared.minus))
    several = [one for one in found if len(one.scores.runs) > 1]
    return several if several or shown else found


def _comparison(table: Available, scores: Scores, minus: Mapping[str, str]) -> Comparison:
    against = [_against(scores, ours, other) for other, ours in minus.items()]
    scored = [column for column in scores.columns if scores.languages(column)]
    return Comparison(table, scores, scored, [one for one in against if one.languages])


def _against(scores: Scores, ours: str, other: str) -> Against:
    *found, average = differences(scores, ours, other)
    languages: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for column in scores.columns:
        for language, pair in by_language(scores, column, ours, other).items():
            languages[language][column.head] = pair
    heads = [column.head for column in scores.columns]
    columns = {head: one for head, one in zip(heads, found, strict=True) if one.mean is not None}
    return Against(ours, other, average, columns, languages)


def _largest(numbers: Iterable[float]) -> float:
    """The largest absolute value; or 1 for 0, so that one can divide by it."""
    return max(map(abs, numbers), default=0) or 1
