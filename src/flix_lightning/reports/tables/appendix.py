"""Tables 6-50, the paper's appendices C and D: every dataset of one method on one mixture."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from flix_lightning.common.errors import UserError
from flix_lightning.reports import paper, render
from flix_lightning.reports.render import Report, Section, Table
from flix_lightning.reports.tables import table1, table2
from flix_lightning.reports.tables.methods import PAPER_ROWS
from flix_lightning.reports.tables.printed import Footnotes, printed_cell
from flix_lightning.reports.tables.scores import ScoreColumn, Scores, mean, missing_runs
from flix_lightning.runs.run import Run

SPLITS = ("validation", "test")

#: The paper's rows of tables that go by task.
_TASKS = {
    "semantic_parsing": "SemParse",
    "qa_in_lang": "QA-InLang",
    "qa_cross_lang": "QA-CrossLang",
    "ner": "NER",
}


@dataclass(frozen=True)
class Shown:
    """What a table of the appendix shows: one column of Table 1 or 2, dataset by dataset, of one method."""

    column: ScoreColumn
    method: str


SHOWN = {
    number: Shown(column, method)
    for column in (*table1.COLUMNS, *table2.COLUMNS)
    for number, method in zip(column.appendix, PAPER_ROWS, strict=True)
} | {table2.SINGLE_DATASET[column.head]: Shown(column, "Compute-matched") for column in table2.COLUMNS}
"""The paper's number -> what its table shows."""


def table(number: int, runs: Sequence[Run], missing: Sequence[str] = ()) -> Report:
    """One of the paper's Tables 6-50 from our runs, beside the paper's own.

    Args:
        number: the paper's.
        runs: of the table's method; on one mixture, or one run for each of its datasets (Single-Lang and
            Single-Task); one of each for each seed.
        missing: names of the table's runs that are not there; the table is made without them and says so.

    Raises:
        UserError: runs that do not belong together, or contradict each other (see `Scores`).
    """
    theirs, method, footnotes = paper.table(number), SHOWN[number].method, Footnotes()
    columns = _columns(SHOWN[number].column, method, runs)
    found: dict[tuple[str, str], Collection[float]] = {}
    for split in SPLITS if columns else ():
        lines = Scores(tuple(columns.values()), runs, split).line(method)
        for name, by_seed in zip((*columns, "average"), lines, strict=True):
            found[name, split] = by_seed.values()

    def line(name: str) -> tuple[str, ...]:
        ours = [mean(found.get((name, split), ())) for split in SPLITS]
        return (name, *ours, *(printed_cell(theirs, name, split, footnotes) for split in SPLITS))

    names = dict.fromkeys([*theirs.rows, *columns])
    del names["average"]
    sections = (Section("", tuple(map(line, names))), Section("", (line("average"),)))
    heads = [render.Column(split.title(), group) for group in (method, "The paper's own") for split in SPLITS]
    seeds = ", ".join(map(str, sorted({row.seed for run in runs for row in run.rows}))) or "none"
    explained = (
        f"Scores on 0-100; seeds: {seeds}; mean ± half of the 95 % t-interval over two seeds or more.",
        "Each average is over what stands in its own column; validation is of trained datasets only.",
    )
    first = "Language" if SHOWN[number].column.task else "Task"
    results = Table(
        f"Table {number}: {theirs.caption.rstrip('.')}",
        (render.Column(first), *heads),
        sections,
        (*explained, *footnotes.lines),
    )
    return Report((results,), missing_runs(missing))


def _columns(shown: ScoreColumn, method: str, runs: Sequence[Run]) -> dict[str, ScoreColumn]:
    """The paper's name of each dataset that the runs were tested on -> a column of it alone."""
    columns: dict[str, ScoreColumn] = {}
    for row in (row for run in runs for row in run.rows if row.split == "test"):
        if row.method != method:
            raise UserError(f"run {row.run}: method {row.method!r} is not this table's ({method})")
        if row.seen != shown.seen or shown.task not in (None, row.task):
            continue
        name = row.language if shown.task else _TASKS[row.task]
        column = ScoreColumn(name, row.task, row.seen, row.mixture, languages=frozenset({row.language}))
        if columns.setdefault(name, column) != column:
            other = columns[name].mixture
            raise UserError(
                f"run {row.run}: {name} is of mixture {row.mixture!r} here, of {other!r} elsewhere"
            )
    return columns
