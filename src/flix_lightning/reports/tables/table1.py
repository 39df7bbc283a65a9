"""Table 1: multilingual multitask learning with FLix."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from flix_lightning.reports.columns import HOLDOUT, JOINT, METHODS, TABLE1
from flix_lightning.reports.paper import DASH
from flix_lightning.reports.render import Column, Report, Section, Table
from flix_lightning.reports.tables import mistakes
from flix_lightning.reports.tables.methods import by_method, controls, paper_lines, report
from flix_lightning.reports.tables.scores import Scores
from flix_lightning.runs.run import Run

_FACTS = {
    "rank": "Rank",
    "active_parameters": "Active parameters",
    "total_parameters": "Total parameters",
    "examples_seen": "Examples seen",
    "share_without_features": "Examples without an active feature",
}


def table(runs: Sequence[Run]) -> Report:
    """The paper's Table 1 from our runs, with its controls, and the size of each method below."""
    lines = by_method(runs, METHODS, (JOINT, HOLDOUT))
    scores = Scores(TABLE1, lines)
    own, footnotes = paper_lines(1, TABLE1)
    control_lines, note = controls(scores)
    results = report(
        "Table 1: multilingual multitask learning with FLix",
        scores,
        more={"Controls": control_lines, "The paper's own": own},
        notes=[note, *footnotes],
    )
    facts = [
        (method, mixture, *_facts([run for run in alike if run.cfg.mixture.name == mixture]))
        for method, alike in lines.items()
        for mixture in (JOINT, HOLDOUT)
    ]
    heads = tuple(map(Column, ("", "Trained on", *_FACTS.values())))
    return replace(
        results, tables=(*results.tables, Table("Size and training", heads, (Section("", tuple(facts)),)))
    )


def mistakes_report(runs: Sequence[Run]) -> Report:
    """The kinds of mistakes behind the table."""
    return mistakes.table(Scores(TABLE1, by_method(runs, METHODS, (JOINT, HOLDOUT))))


def _facts(runs: Sequence[Run]) -> list[str]:
    texts = []
    for metric in _FACTS:
        values = [row.value for run in runs for row in run.rows if row.metric == metric]
        form = ".1%" if metric == "share_without_features" else ",.0f"
        texts.append(format(fmean(values), form) if values else DASH)
    return texts
