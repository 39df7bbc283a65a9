"""Table 1's columns on a lite mixture; on the whole one with zero-shot in-language QA beside them."""

from collections.abc import Sequence
from dataclasses import replace

from flix_lightning.reports.columns import METHODS, TABLE1, ScoreColumn
from flix_lightning.reports.render import Report
from flix_lightning.reports.tables.methods import by_method, paper_lines, report
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
    mixture = columns[0].mixture
    own, footnotes = paper_lines(1, columns)
    note = "NER is XTREME-UP's own; the other tasks come from other sources, in its layout."
    scores = Scores(columns, by_method(runs, METHODS, [mixture]))
    title = f"The mixture {mixture}: methods on real data"
    return report(title, scores, more={"The paper's own": own}, notes=[note, *footnotes])
