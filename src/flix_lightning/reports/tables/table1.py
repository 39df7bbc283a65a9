"""Table 1: multilingual multitask learning with FLix."""

from collections.abc import Sequence
from statistics import fmean

from flix_lightning.reports.columns import HOLDOUT, JOINT, METHODS, TABLE1
from flix_lightning.reports.paper import DASH
from flix_lightning.reports.render import Column, Report, Section, Table
from flix_lightning.reports.tables.methods import by_method, means, paper_lines
from flix_lightning.reports.tables.methods import table as methods_table
from flix_lightning.reports.tables.scores import Scores
from flix_lightning.runs.run import Run

_CONTROLS = {"none": "Frozen base", "task": "Task rows only", "language": "Language rows only"}
_FACTS = {
    "rank": "Rank",
    "active_parameters": "Active parameters",
    "total_parameters": "Total parameters",
    "examples_seen": "Examples seen",
    "share_without_features": "Examples without an active feature",
}


def table(runs: Sequence[Run]) -> Report:
    """The paper's Table 1 from our runs, with the paper's lines below them.

    Raises:
        UserError: as `methods.report`.
    """
    lines = by_method(runs, METHODS, (JOINT, HOLDOUT))
    scores = Scores(TABLE1, lines)
    results = methods_table(
        "Table 1: multilingual multitask learning with FLix",
        scores,
        paper_lines(1, scores),
        controls=[means("FLix", scores, active, name) for active, name in _CONTROLS.items()],
        notes=[f"{', '.join(_CONTROLS.values())}: evaluations of the FLix runs with nothing else on."],
    )
    facts = [
        (method, mixture, *_facts([run for run in alike if run.cfg.mixture.name == mixture]))
        for method, alike in lines.items()
        for mixture in (JOINT, HOLDOUT)
    ]
    heads = tuple(map(Column, ("", "Trained on", *_FACTS.values())))
    return Report((results, Table("Size and training", heads, (Section("", tuple(facts)),))), scores.gaps())


def _facts(runs: Sequence[Run]) -> list[str]:
    texts = []
    for metric in _FACTS:
        values = [row.value for run in runs for row in run.rows if row.metric == metric]
        form = ".1%" if metric == "share_without_features" else ",.0f"
        texts.append(format(fmean(values), form) if values else DASH)
    return texts
