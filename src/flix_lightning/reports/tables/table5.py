"""Table 5: FLix with a further feature that every example has (the paper's Appendix A)."""

from collections.abc import Sequence
from dataclasses import replace

from flix_lightning.reports.render import Report
from flix_lightning.reports.tables import methods, table1
from flix_lightning.runs.run import Run

METHODS = {
    "FLix": "FLix",
    "FLix-shared": "+ shared parameters",
    "Compute-matched": "Compute-matched LoRA",
}
"""Our method -> the paper's row."""

_HEADS = {
    "qa_in_lang": "QA InLang",
    "qa_cross_lang": "QA CrossLang",
    "semantic_parsing": "Semantic parsing",
    "ner": "NER",
}

# The supervised columns of Table 1, in another order.
COLUMNS = tuple(
    replace(column, head=head)
    for task, head in _HEADS.items()
    for column in table1.COLUMNS
    if (column.task, column.seen) == (task, "seen")
)


def table(runs: Sequence[Run], missing: Sequence[str] = ()) -> Report:
    """The paper's Table 5 from our runs, with the paper's rows below them.

    Args: and Raises: as `methods.report`.
    """
    return methods.report(
        5,
        "Table 5: effect of adding shared parameters across all datasets",
        COLUMNS,
        runs,
        missing,
        METHODS,
    )
