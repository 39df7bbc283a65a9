"""Table 1's columns on a lite mixture; on the whole one with zero-shot in-language QA beside them."""

from collections.abc import Sequence
from dataclasses import replace

from flix_lightning.reports.columns import METHODS, TABLE1, ScoreColumn
from flix_lightning.reports.render import Report
from flix_lightning.reports.tables import mistakes
from flix_lightning.reports.tables.appendix import datasets, datasets_report
from flix_lightning.reports.tables.methods import by_method, controls, paper_lines, report
from flix_lightning.reports.tables.scores import Scores
from flix_lightning.runs.run import Run

COLUMNS = {
    "lite": (
        *(replace(column, mixture="lite", appendix=()) for column in TABLE1),
        ScoreColumn("Unseen Lang: QA InLang", "qa_in_lang", "unseen_language", "lite", "Zero-shot"),
    ),
    "lite_cpu": tuple(
        replace(column, mixture="lite_short", appendix=())
        for column in TABLE1
        if column.task in ("ner", "semantic_parsing")
    ),
}
"""Sweep -> the columns of its table."""


def table(sweep: str, runs: Sequence[Run]) -> Report:
    """The three methods on a sweep's mixture, with the paper's Table 1 below them."""
    columns = COLUMNS[sweep]
    scores = Scores(columns, _by_method(sweep, runs))
    own, footnotes = paper_lines(1, columns)
    control_lines, controls_note = controls(scores)
    note = "NER is XTREME-UP's own; the other tasks come from other sources, in its layout."
    more = {"Controls": control_lines, "The paper's own": own}
    title = f"The mixture {columns[0].mixture}: methods on real data"
    return report(title, scores, more=more, notes=[controls_note, note, *footnotes])


def languages(sweep: str, runs: Sequence[Run]) -> Report:
    """The languages behind each column of a sweep's table, one table a column."""
    lines = _by_method(sweep, runs)
    tables = [datasets(column.name, column, lines, splits=["test"]) for column in COLUMNS[sweep]]
    return datasets_report(tables, lines)


def mistakes_report(sweep: str, runs: Sequence[Run]) -> Report:
    """The kinds of mistakes behind a sweep's table."""
    return mistakes.table(Scores(COLUMNS[sweep], _by_method(sweep, runs)))


def _by_method(sweep: str, runs: Sequence[Run]) -> dict[str, list[Run]]:
    return by_method(runs, METHODS, [column.mixture for column in COLUMNS[sweep]])
