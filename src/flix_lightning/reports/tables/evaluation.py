"""One evaluation of one run: every language of every task, and their macro averages."""

from collections.abc import Sequence

from flix_lightning.reports import render
from flix_lightning.reports.render import Report, Section, Table
from flix_lightning.runs.rows import Row, macro_averages

_COLUMNS = ("Language", "In training", "Score", "Examples")


def table(rows: Sequence[Row]) -> Report:
    """A table of each task from the rows of one evaluation, in their order.

    Args:
        rows: test rows, all features on.
    """
    return Report(tuple(_table(task, rows) for task in dict.fromkeys(row.task for row in rows)))


def _table(task: str, rows: Sequence[Row]) -> Table:
    own = [row for row in rows if row.task == task]
    lines = [(row.language, _words(row.seen), f"{row.value:.1f}", str(row.n)) for row in own]
    averages = [
        ("average", _words(seen), f"{value:.1f}", str(sum(row.n for row in own if row.seen == seen)))
        for (_, _, seen), value in macro_averages(own).items()
    ]
    zero_shot = any(row.seen != "seen" for row in own)
    return Table(
        f"{_words(task)}: {_words(own[0].metric)}",
        tuple(map(render.Column, _COLUMNS)),
        (Section("", tuple(lines)), Section("", tuple(averages))),
        ("Unseen is zero-shot: by the rows of those features that were trained.",) if zero_shot else (),
    )


def _words(name: str) -> str:
    return name.replace("_", " ")
