"""Table 1's columns on the lite mixture, with zero-shot in-language QA beside them."""

from collections.abc import Sequence
from dataclasses import replace

from flix_lightning.reports.render import Report
from flix_lightning.reports.tables import methods, table1
from flix_lightning.reports.tables.scores import ScoreColumn
from flix_lightning.runs.run import Run

MIXTURE = "lite"

COLUMNS = (
    *(replace(column, mixture=MIXTURE, appendix=()) for column in table1.COLUMNS),
    ScoreColumn("Unseen Lang: QA InLang", "qa_in_lang", "unseen_language", MIXTURE, "Zero-shot"),
)


def table(runs: Sequence[Run], missing: Sequence[str] = ()) -> Report:
    """The three methods on the lite mixture, with the paper's Table 1 below them.

    Args: and Raises: as `methods.report`.
    """
    return methods.report(
        1,
        "The lite mixture: methods on real data",
        COLUMNS,
        runs,
        missing,
        notes=("NER is XTREME-UP's own; the other tasks come from other sources, in its layout.",),
    )
