"""What the methods wrote for some test examples, by language, where a page may show the data's texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from flix_lightning.reports.dashboard.comparison import Comparison
from flix_lightning.reports.tables.methods import PAPER_ROWS
from flix_lightning.reports.tables.scores import ScoreColumn, Scores
from flix_lightning.runs.rows import Row
from flix_lightning.runs.run import Run
from flix_lightning.tasks.definitions import get_task

COUNT = 3
"""Examples of each dataset, those of the smallest hash."""


@dataclass(frozen=True)
class Sample:
    """One test example.

    Attributes:
        input: the prompted text.
        target: what would be right.
        predictions: method -> what it wrote.
    """

    input: str
    target: str
    predictions: Mapping[str, str]


@dataclass(frozen=True)
class Samples:
    """Of one seed.

    Attributes:
        seed: the first of the table's.
        languages: language -> (head of the table's column, examples).
        left_out: tasks whose texts `data.samples` does not name.
    """

    seed: int
    languages: Mapping[str, Sequence[tuple[str, Sequence[Sample]]]]
    left_out: Sequence[str]


def samples(comparison: Comparison) -> Samples:
    """Some examples of every dataset behind the table.

    Raises:
        UserError: predictions or data cannot be read, or `data.samples` names what is no task.
    """
    seed = comparison.held.seeds[0]
    shown = [get_task(task).name for task in comparison.held.runs[0].cfg.data.samples]
    runs = {run.id: run for run in comparison.held.runs}
    languages: dict[str, list[tuple[str, Sequence[Sample]]]] = {}
    left_out = {}
    for column in comparison.columns:
        for rows in _datasets(comparison.scores, column, seed):
            first = next(iter(rows.values()))
            if first.task not in shown:
                left_out[first.task] = None
                continue
            languages.setdefault(first.language, []).append((column.head, _samples(rows, runs)))
    return Samples(seed, languages, list(left_out))


def _datasets(scores: Scores, column: ScoreColumn, seed: int) -> list[Mapping[str, Row]]:
    """For each of the column's datasets, method -> its row."""
    rows = {method: scores.rows(column, method, seed) for method in PAPER_ROWS}
    return [
        {method: found[name] for method, found in rows.items() if name in found}
        for name in scores.languages(column)
        if any(name in found for found in rows.values())
    ]


def _samples(rows: Mapping[str, Row], runs: Mapping[str, Run]) -> list[Sample]:
    predicted = {method: _predictions(row, runs[row.run]) for method, row in rows.items()}
    row = next(iter(rows.values()))
    inputs = {
        example.id: (example.input, example.target)
        for example in runs[row.run].layout.read(row.task, "test", row.language)
    }
    common = set.intersection(*(set(found) for found in predicted.values()))
    chosen = sorted(common, key=lambda name: blake2b(name.encode()).digest())[:COUNT]
    return [
        Sample(*inputs[name], {method: found[name] for method, found in predicted.items()}) for name in chosen
    ]


def _predictions(row: Row, run: Run) -> dict[str, str]:
    """Id -> what the run wrote."""
    return {one.id: one.prediction for one in run.predictions(row)}
