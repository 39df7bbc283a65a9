"""Table 1's columns on the lite mixture, with zero-shot in-language QA beside them."""

from collections.abc import Sequence
from dataclasses import replace

from flix_lightning.reports.columns import METHODS, TABLE1, ScoreColumn
from flix_lightning.reports.render import Report
from flix_lightning.reports.tables.methods import by_method, paper_lines, report
from flix_lightning.reports.tables.scores import Scores
from flix_lightning.runs.run import Run

COLUMNS = (
    *(replace(column, mixture="lite", appendix=()) for column in TABLE1),
    ScoreColumn("Unseen Lang: QA InLang", "qa_in_lang", "unseen_language", "lite", "Zero-shot"),
)


def table(runs: Sequence[Run]) -> Report:
    """The three methods on the lite mixture, with the paper's Table 1 below them."""
    own, footnotes = paper_lines(1, COLUMNS)
    note = "NER is XTREME-UP's own; the other tasks come from other sources, in its layout."
    scores = Scores(COLUMNS, by_method(runs, METHODS, ["lite"]))
    title = "The lite mixture: methods on real data"
    return report(title, scores, more={"The paper's own": own}, notes=[note, *footnotes])
