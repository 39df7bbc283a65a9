"""Table 5: FLix with a further feature that every example has (the paper's Appendix A)."""

from collections.abc import Sequence
from dataclasses import replace

from flix_lightning.reports import paper
from flix_lightning.reports.columns import JOINT, TABLE1
from flix_lightning.reports.render import Report
from flix_lightning.reports.tables.methods import by_method, paper_lines, report
from flix_lightning.reports.tables.scores import Scores
from flix_lightning.runs.run import Run

NAMES = {
    "FLix": "FLix",
    "FLix-shared": "+ shared parameters",
    "Compute-matched": "Compute-matched LoRA",
}
"""Our method -> the paper's line."""

# Table 1's columns of what was trained on, in another order; one of the paper's heads has a small letter.
COLUMNS = tuple(
    replace(column, head=head)
    for head in paper.table(5).columns
    for column in TABLE1
    if column.head.lower() == head.lower()
)


def table(runs: Sequence[Run]) -> Report:
    """The paper's Table 5 from our runs."""
    own, footnotes = paper_lines(5, COLUMNS, NAMES.values())
    title = "Table 5: effect of adding shared parameters across all datasets"
    scores = Scores(COLUMNS, by_method(runs, NAMES, [JOINT]))
    return report(title, scores, more={"The paper's own": own}, notes=footnotes)
