"""One evaluation of one run: every language of every task, and their macro averages."""

from collections.abc import Sequence

from flix_lightning.reports import render
from flix_lightning.reports.render import Report, Section, Table
from flix_lightning.runs.rows import Row, macro_averages


def table(rows: Sequence[Row]) -> Report:
    """A table of each task from the rows of one evaluation, all features on, in their order."""
    return Report(tuple(_table(task, rows) for task in dict.fromkeys(row.task for row in rows)))


def _table(task: str, rows: Sequence[Row]) -> Table:
    by_metric: dict[str, list[Row]] = {}  # the selecting metric first
    for row in rows:
        if row.task == task:
            by_metric.setdefault(row.metric, []).append(row)
    scores = zip(*by_metric.values(), strict=True)
    lines = [
        (of[0].language, _words(of[0].seen), *(f"{row.value:.1f}" for row in of), str(of[0].n))
        for of in scores
    ]
    own = next(iter(by_metric.values()))
    means = [macro_averages(alike) for alike in by_metric.values()]
    averages = [
        (
            "average",
            _words(key[-1]),
            *(f"{mean[key]:.1f}" for mean in means),
            str(sum(row.n for row in own if row.seen == key[-1])),
        )
        for key in means[0]
    ]
    zero_shot = any(row.seen != "seen" for row in own)
    heads = ["Score"] if len(by_metric) == 1 else map(_words, by_metric)
    return Table(
        f"{_words(task)}: {', '.join(map(_words, by_metric))}",
        tuple(map(render.Column, ("Language", "In training", *heads, "Examples"))),
        (Section("", tuple(lines)), Section("", tuple(averages))),
        ("Unseen is zero-shot: by the rows of those features that were trained.",) if zero_shot else (),
    )


def _words(name: str) -> str:
    return name.replace("_", " ")
