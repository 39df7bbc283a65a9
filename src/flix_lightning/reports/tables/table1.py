"""Table 1: multilingual multitask learning with FLix; and the same columns on the mixtures of real data."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from flix_lightning.reports.chart import BarChart, Bars
from flix_lightning.reports.columns import METHODS, TABLE1, ScoreColumn
from flix_lightning.reports.paper import DASH
from flix_lightning.reports.render import Column, Report, Section, Table
from flix_lightning.reports.tables import appendix, mistakes
from flix_lightning.reports.tables.methods import (
    CONTROLS,
    TASK_ROWS,
    by_method,
    controls,
    paper_lines,
    report,
)
from flix_lightning.reports.tables.scores import Scores
from flix_lightning.runs.run import Run

COLUMNS = {
    "table1": TABLE1,
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
_LITE = "NER is XTREME-UP's own; the other tasks come from other sources, in its layout."
_HEADINGS = {
    "table1": ("Table 1: multilingual multitask learning with FLix", ()),
    "lite": ("The mixture lite: methods on real data", (_LITE,)),
    "lite_cpu": ("The mixture lite_short: methods on real data", (_LITE,)),
}
_FACTS = {
    "rank": "Rank",
    "active_parameters": "Active parameters",
    "total_parameters": "Total parameters",
    "examples_seen": "Examples seen",
    "share_without_features": "Examples without an active feature",
}


def table(sweep: str, runs: Sequence[Run]) -> Report:
    """The methods and FLix's controls above the paper's Table 1, and the size of each method below."""
    columns, (title, notes) = COLUMNS[sweep], _HEADINGS[sweep]
    lines = _lines(sweep, runs)
    scores = Scores(columns, lines, controls=CONTROLS)
    own, footnotes = paper_lines(1, columns)
    control_lines, controls_note = controls(scores)
    more = {"Controls": control_lines, "The paper's own": own}
    minus = dict.fromkeys((*(one for one in METHODS if one != "FLix"), TASK_ROWS), "FLix")
    results = report(title, scores, minus=minus, more=more, notes=[controls_note, *notes, *footnotes])
    facts = [
        (method, mixture, *_facts([run for run in alike if run.cfg.mixture.name == mixture]))
        for method, alike in lines.items()
        for mixture in dict.fromkeys(column.mixture for column in columns)
    ]
    heads = tuple(map(Column, ("", "Trained on", *_FACTS.values())))
    return replace(
        results, tables=(*results.tables, Table("Size and training", heads, (Section("", tuple(facts)),)))
    )


def languages(sweep: str, runs: Sequence[Run]) -> BarChart:
    """The languages behind each column of a sweep's table, one table and one panel of bars a column."""
    lines, tables = _lines(sweep, runs), []
    for column in COLUMNS[sweep]:
        title, paper = column.name, {}
        if column.appendix:
            title = f"{column.head} (the paper's Tables {min(column.appendix)}-{max(column.appendix)})"
            numbers = dict(zip(METHODS, column.appendix, strict=True))
            paper = {"numbers": numbers, "paper_splits": ["test"]}
        tables.append(appendix.datasets(title, column, lines, **paper))
    scores = Scores(COLUMNS[sweep], lines)
    made = appendix.datasets_report(tables, lines, scores.gaps())
    panels = [_bars(column, scores) for column in COLUMNS[sweep]]
    title = f"{_HEADINGS[sweep][0]}, test scores by language"
    return BarChart(made.tables, made.warnings, title=title, panels=tuple(panels))


def mistakes_report(sweep: str, runs: Sequence[Run]) -> Report:
    """The kinds of mistakes behind a sweep's table."""
    return mistakes.table(Scores(COLUMNS[sweep], _lines(sweep, runs)))


def _bars(column: ScoreColumn, scores: Scores) -> Bars:
    """The mean over seeds of each language of a column, by method."""
    names, series = scores.languages(column), {}
    for line in scores.runs:
        found = (scores.of_language(column, line, name) for name in names)
        series[line] = [fmean(values) if values else None for values in found]
    return Bars(column.name, names, series, form=None)


def _lines(sweep: str, runs: Sequence[Run]) -> dict[str, list[Run]]:
    return by_method(runs, METHODS, [column.mixture for column in COLUMNS[sweep]])


def _facts(runs: Sequence[Run]) -> list[str]:
    texts = []
    for metric in _FACTS:
        values = [run.facts[metric] for run in runs if metric in run.facts]
        form = ".1%" if metric == "share_without_features" else ",.0f"
        texts.append(format(fmean(values), form) if values else DASH)
    return texts
