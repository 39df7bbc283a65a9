"""What the tables read: finished runs, and their scores by column, method and seed."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from flix_lightning.common.errors import UserError
from flix_lightning.reports.intervals import t_half_width
from flix_lightning.runs.rows import Row
from flix_lightning.runs.run import Run

DASH = "—"


@dataclass(frozen=True)
class ScoreColumn:
    """A column of scores: the macro average over languages of one task in one kind of evaluation.

    Attributes:
        head: as in the paper.
        task: the evaluated task; None is each task of a mixture of one language, and the macro average then
            goes over them: a task's name stands wherever a language's does.
        seen: what its languages are to the training mixture.
        mixture: what its runs were trained on.
        group: the heading above it, as in the paper, or none.
        appendix: the paper's tables of its languages, one a method in the paper's order, or none.
        languages: those that count; None is all.
    """

    head: str
    task: str | None
    seen: str
    mixture: str
    group: str = ""
    appendix: tuple[int, ...] = ()
    languages: frozenset[str] | None = None


class Scores:
    """One split's scores of some runs, by column, method, active features and seed.

    A run whose languages are fewer than the other runs' has no macro average in that column: it would not
    be the same average.

    Raises:
        UserError: two runs of the same method, mixture and seed, or one dataset scored twice in a run.
    """

    def __init__(self, columns: Sequence[ScoreColumn], runs: Sequence[Run], split: str = "test"):
        self.columns = columns
        self._rows: dict[tuple, dict[str, Row]] = defaultdict(dict)
        self._counts = {run.rows[0].run: run.counts for run in runs if run.rows}
        rows = [row for run in runs for row in run.rows]
        _check_runs(rows)
        # A run may keep every validation it made; that of the tested weights stands beside the test.
        tested = {
            (row.run, row.task, row.step) for row in rows if row.split == "test" and row.active == "all"
        }
        rows = [row for row in rows if row.split == split]
        if split == "validation":
            rows = [row for row in rows if (row.run, row.task, row.step) in tested]
        self.seeds = sorted({row.seed for row in rows})
        by_task = {column.mixture for column in columns if column.task is None}
        for row in rows:
            task, name = (None, row.task) if row.mixture in by_task else (row.task, row.language)
            found = self._rows[row.mixture, task, row.seen, row.method, row.seed, row.active]
            if name in found:
                dataset = f"{row.task}/{row.language}"
                raise UserError(f"run {row.run}: {dataset} is scored twice in {split}, active {row.active}")
            found[name] = row

    def rows(self, column: ScoreColumn, method: str, seed: int, active: str = "all") -> dict[str, Row]:
        """One run's rows of the column, by language; empty where there are none."""
        found = self._rows.get((column.mixture, column.task, column.seen, method, seed, active), {})
        counted = column.languages
        return {one: row for one, row in found.items() if counted is None or one in counted}

    def counts(self, row: Row) -> NDArray[np.float64]:
        """What each example of a test row adds to the sums of its metric, `[examples, sums]`."""
        return self._counts[row.run](row)

    def by_language(
        self, column: ScoreColumn, method: str, seed: int, active: str = "all"
    ) -> dict[str, float]:
        """One run's scores of the column's languages; empty where there are none."""
        found = self.rows(column, method, seed, active)
        return {language: row.value for language, row in found.items()}

    def languages(self, column: ScoreColumn) -> list[str]:
        """Every language that some run was scored on in that column, sorted."""
        dataset = (column.mixture, column.task, column.seen)
        found = {one for key, rows in self._rows.items() if key[:3] == dataset for one in rows}
        return sorted(found if column.languages is None else found & column.languages)

    def by_seed(self, column: ScoreColumn, method: str, active: str = "all") -> dict[int, float]:
        """The macro average over languages of each seed that has all of them."""
        expected = len(self.languages(column))
        runs = {seed: self.by_language(column, method, seed, active) for seed in self.seeds}
        return {seed: fmean(run.values()) for seed, run in runs.items() if run and len(run) == expected}

    def line(self, method: str, active: str = "all") -> list[dict[int, float]]:
        """Every column `by_seed`, and last their average for each seed that has all columns."""
        line = [self.by_seed(column, method, active) for column in self.columns]
        complete = [seed for seed in self.seeds if all(seed in column for column in line)]
        return [*line, {seed: fmean(column[seed] for column in line) for seed in complete}]


def _check_runs(rows: Sequence[Row]) -> None:
    runs = {}
    for row in rows:
        first = runs.setdefault((row.method, row.mixture, row.seed), row.run)
        if first != row.run:
            raise UserError(
                f"runs {first} and {row.run} are both {row.method}, {row.mixture}, seed {row.seed}"
            )


def mean(values: Collection[float]) -> str:
    """A mean with half of its 95 % t-interval, if there are two values or more."""
    if not values:
        return DASH
    spread = f" ±{t_half_width(values):.1f}" if len(values) > 1 else ""
    return f"{fmean(values):.1f}{spread}"


def missing_runs(names: Sequence[str]) -> tuple[str, ...]:
    """The warning of a table that lacks runs."""
    return (f"Missing runs, so this table is not complete: {', '.join(names)}",) if names else ()
