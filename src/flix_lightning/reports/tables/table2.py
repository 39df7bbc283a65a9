"""Table 2: learning either in many languages or in many tasks (its datasets: the paper's Tables 6-29)."""

from collections.abc import Sequence

from flix_lightning.reports import paper
from flix_lightning.reports.columns import METHODS, TABLE2
from flix_lightning.reports.paper import DASH
from flix_lightning.reports.render import Report
from flix_lightning.reports.tables.methods import by_method, paper_lines, report
from flix_lightning.reports.tables.scores import Scores
from flix_lightning.runs.run import Run


def table(runs: Sequence[Run]) -> Report:
    """The paper's Table 2 from our runs."""
    scores = Scores(TABLE2, by_method(runs, METHODS, [column.mixture for column in TABLE2]))
    own, footnotes = paper_lines(2, TABLE2)
    single = [paper.table(column.single).lines["average"]["test"] for column in TABLE2]
    own.append(("Single-Lang, Single-Task", *map(str, single), DASH))
    notes = [
        "Swahili and Bengali: averages over their tasks, each on 0-100 by its own metric.",
        "Single-Lang, Single-Task: a LoRA for each dataset; the paper's Tables 6, 10, 14, 18, 22 and 26.",
    ]
    title = "Table 2: results of either multitask learning or multilingual learning"
    return report(title, scores, more={"The paper's own": own}, notes=[*notes, *footnotes])
