"""What the methods wrote for some test examples, by language, where a page may show the data's texts."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

from flix_lightning.reports.dashboard.comparison import Comparison
from flix_lightning.runs.rows import Row
from flix_lightning.runs.run import Run

COUNT = 3
"""Examples of each dataset: those with the smallest hashes."""


class Sample(NamedTuple):
    """A test example: its prompted input, the right answer, and what each method wrote."""

    input: str
    target: str
    predictions: Mapping[str, str]


def samples(comparison: Comparison) -> tuple[dict[str, list[tuple[str, list[Sample]]]], list[str]]:
    """Some examples of every dataset behind a table, for the first of its seeds.

    Returns:
        Language -> (head of the table's column, examples); and the tasks that `data.samples` does not name,
        whose texts are left out.

    Raises:
        UserError: predictions or data cannot be read, or `data.samples` names what is no task.
    """
    scores, seed = comparison.scores, comparison.table.seeds[0]
    first = comparison.table.runs[0]
    shown = {first.tasks.get(task).name for task in first.cfg.data.samples}
    languages, left_out = {}, {}
    for column in comparison.columns:
        by_method = {method: scores.rows(column, method, seed) for method in scores.runs}
        for name in scores.languages(column):
            found = {method: rows[name] for method, rows in by_method.items() if name in rows}
            for task, language in {(row.task, row.language) for _, row in found.values()}:
                if task in shown:
                    languages.setdefault(language, []).append((column.head, _samples(found)))
                else:
                    left_out[task] = None
    return languages, list(left_out)


def _samples(found: Mapping[str, tuple[Run, Row]]) -> list[Sample]:
    predicted = {
        method: {one.id: one.prediction for one in run.predictions(row)}
        for method, (run, row) in found.items()
    }
    run, row = next(iter(found.values()))
    examples = {example.id: example for example in run.layout.read(row.task, "test", row.language)}
    common = set.intersection(*map(set, predicted.values()))
    chosen = sorted(common, key=lambda name: blake2b(name.encode()).digest())[:COUNT]
    texts = {name: {method: wrote[name] for method, wrote in predicted.items()} for name in chosen}
    return [Sample(examples[name].input, examples[name].target, texts[name]) for name in chosen]
