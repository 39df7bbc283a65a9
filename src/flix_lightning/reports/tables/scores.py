"""Scores of finished runs by column, line and seed of a table."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

from flix_lightning.common.errors import UserError
from flix_lightning.reports.columns import ScoreColumn
from flix_lightning.reports.intervals import t_half_width
from flix_lightning.reports.paper import DASH
from flix_lightning.runs.rows import Row, selecting
from flix_lightning.runs.run import Run


class Scores:
    """The scores of one split.

    A seed that lacks languages of other runs has no macro average in that column, as it would not be the same
    average.

    Attributes:
        runs: name of a line -> its finished runs, on the columns' mixtures and any seeds.
        controls: name of a further line -> the line whose runs were tested for it, and which features were
            on, as in result rows.
        seeds: all that have scores, sorted.

    Raises:
        UserError: two result rows are of the same line, column, seed and language.
    """

    def __init__(
        self,
        columns: Sequence[ScoreColumn],
        runs: Mapping[str, Sequence[Run]],
        split: str = "test",
        controls: Mapping[str, tuple[str, str]] | None = None,
    ):
        """`split` is "test", or "validation" for the validations of the tested weights."""
        self.columns, self.runs, self.controls = columns, runs, controls or {}
        self._rows: dict[tuple, dict[str, tuple[Run, Row]]] = defaultdict(dict)
        for line, run in ((line, run) for line, alike in runs.items() for run in alike):
            tested = {(row.task, row.step) for row in run.rows if row.split == "test" and row.active == "all"}
            for row in selecting(run.rows):
                if row.split == split and (split == "test" or (row.task, row.step) in tested):
                    self._add(line, run, row)
        self.seeds = sorted({seed for _, _, seed, _ in self._rows})

    def _add(self, line: str, run: Run, row: Row) -> None:
        for column in self.columns:
            if name := column.dataset(row):
                found = self._rows[column, line, row.seed, row.active]
                if name in found:
                    names = " and ".join(dict.fromkeys([found[name][0].name, run.name]))
                    raise UserError(
                        f"{names}: {row.task}/{row.language} is scored twice in {row.split}, active "
                        f"{row.active}, for {line}, seed {row.seed}"
                    )
                found[name] = run, row

    def rows(self, column: ScoreColumn, line: str, seed: int) -> dict[str, tuple[Run, Row]]:
        """Language -> the run that scored it and the row; empty where there are none."""
        line, active = self.controls.get(line, (line, "all"))
        return self._rows.get((column, line, seed, active), {})

    def by_language(self, column: ScoreColumn, line: str, seed: int) -> dict[str, float]:
        """Language -> its score; empty where there are none."""
        return {name: row.value for name, (_, row) in self.rows(column, line, seed).items()}

    def languages(self, column: ScoreColumn) -> list[str]:
        """Every language of the column that some run was scored on, sorted."""
        return sorted({name for key, rows in self._rows.items() if key[0] == column for name in rows})

    def of_language(self, column: ScoreColumn, line: str, name: str) -> list[float]:
        """A language's score on each seed that has it."""
        found = (self.by_language(column, line, seed) for seed in self.seeds)
        return [scores[name] for scores in found if name in scores]

    def by_seed(self, column: ScoreColumn, line: str) -> dict[int, float]:
        """Seed -> the macro average over languages, for each seed that has all of them."""
        expected = len(self.languages(column))
        found = {seed: self.by_language(column, line, seed).values() for seed in self.seeds}
        return {seed: fmean(values) for seed, values in found.items() if values and len(values) == expected}

    def line(self, line: str) -> list[dict[int, float]]:
        """Every column's `by_seed`, and last their average for each seed that has all columns."""
        cells = [self.by_seed(column, line) for column in self.columns]
        complete = [seed for seed in self.seeds if all(seed in cell for cell in cells)]
        return [*cells, {seed: fmean(cell[seed] for cell in cells) for seed in complete}]

    def gaps(self, whole: bool = True) -> tuple[str, ...]:
        """List the columns in which a seed has no average, and why; `whole` adds those without scores."""
        found = []
        for line, seed in ((line, seed) for line in self.runs for seed in self.seeds):
            absent = []
            for column in self.columns:
                scored = self.by_language(column, line, seed)
                lacking = [name for name in self.languages(column) if name not in scored]
                if lacking and scored:
                    names = ", ".join(lacking)
                    found.append(f"{line}, seed {seed}, is left out of {column.head}: it lacks {names}")
                elif lacking:
                    absent.append(column.head)
            if absent and whole:
                found.append(f"{line}, seed {seed}, has no scores for {', '.join(absent)}")
        return tuple(found)


def mean(values: Collection[float]) -> str:
    """A mean with half of its 95 % t-interval, if there are two values or more."""
    if not values:
        return DASH
    spread = f" ±{t_half_width(values):.1f}" if len(values) > 1 else ""
    return f"{fmean(values):.1f}{spread}"
