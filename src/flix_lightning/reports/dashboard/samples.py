"""What the methods wrote for some test examples, by task, where a page may show the data's texts."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from hashlib import blake2b
from itertools import chain, zip_longest
from math import ceil
from typing import NamedTuple

from flix_lightning.reports.dashboard.comparison import Comparison
from flix_lightning.runs.rows import Row
from flix_lightning.runs.run import Run
from flix_lightning.tasks.metrics import score_texts

OF_TASK = 10
"""Examples that the page shows of a task: of each dataset in turn, those with the smallest hashes."""
OF_DATASET = 3
"""Examples that the page holds of each dataset at least. The filter by language shows them."""


class Answer(NamedTuple):
    """What a method wrote, and its score as if it were the only example."""

    text: str
    score: float


class Sample(NamedTuple):
    """A test example, and what each method wrote for it.

    `column` is the head of the table's column, `input` the text with its prompt.
    """

    column: str
    language: str
    input: str
    target: str
    answers: Mapping[str, Answer]


def samples(
    comparison: Comparison, allowed: Collection[str] | None = None
) -> tuple[dict[str, list[Sample]], list[str]]:
    """Task -> some examples behind a table, for the first of its seeds; and the tasks that are not allowed.

    The page shows the first `OF_TASK` of a task. A run without files of predictions shows nothing. `allowed`
    are tasks whose texts may be shown; None stands for what `data.samples` of the runs says.

    Raises:
        UserError: predictions or data cannot be read, or `allowed` names what is no task.
    """
    scores, seed = comparison.scores, comparison.table.seeds[0]
    first = comparison.table.runs[0]
    allowed = first.cfg.data.samples if allowed is None else allowed
    names = None if allowed is None else {first.tasks.get(task).name for task in allowed}
    datasets: dict[str, list[list[Sample]]] = defaultdict(list)
    left_out = {}
    for column in comparison.columns:
        by_method = {method: scores.rows(column, method, seed) for method in scores.runs}
        for name in scores.languages(column):
            rows = {method: found[name] for method, found in by_method.items() if name in found}
            rows = {method: one for method, one in rows.items() if one[0].predictions_file(one[1]).exists()}
            for task in {row.task for _, row in rows.values()}:
                if names is None or task in names:
                    datasets[task].append(_of_dataset(column.head, rows))
                else:
                    left_out[task] = None
    found = {}
    for task, examples in datasets.items():
        count = max(OF_DATASET, ceil(OF_TASK / len(examples)))
        in_turn = zip_longest(*(one[:count] for one in examples))
        found[task] = [sample for sample in chain.from_iterable(in_turn) if sample]
    return found, list(left_out)


def _of_dataset(column: str, rows: Mapping[str, tuple[Run, Row]]) -> list[Sample]:
    predicted = {
        method: {one.id: one.prediction for one in run.predictions(row)}
        for method, (run, row) in rows.items()
    }
    run, row = next(iter(rows.values()))
    examples = {example.id: example for example in run.layout.read(row.task, "test", row.language)}
    common = set(examples).intersection(*predicted.values())
    found = []
    for name in sorted(common, key=lambda name: blake2b(name.encode()).digest())[:OF_TASK]:
        example = examples[name]
        texts = {method: wrote[name] for method, wrote in predicted.items()}
        answers = {
            method: Answer(text, score_texts(row.metric, [text], [example.target]))
            for method, text in texts.items()
        }
        found.append(Sample(column, row.language, example.input, example.target, answers))
    return found
