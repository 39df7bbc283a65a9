"""Figure 2: what each method gains or loses when all tasks are learned together (the paper's §6.3)."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from flix_lightning.reports import paper
from flix_lightning.reports.chart import BarChart, Bars
from flix_lightning.reports.columns import JOINT, METHODS, TABLE1, TABLE2, ScoreColumn
from flix_lightning.reports.paper import DASH
from flix_lightning.reports.render import Column, Section, Table
from flix_lightning.reports.tables.differences import difference_lines, differences
from flix_lightning.reports.tables.methods import INTERVALS, by_method, seeds, selection
from flix_lightning.reports.tables.scores import Scores
from flix_lightning.runs.run import Run

TOGETHER, ALONE = "Multitask multilingual", "Multilingual"

#: Table 1's and Table 2's column of each task.
_PAIRS = tuple(
    (together, alone)
    for together in TABLE1
    for alone in TABLE2
    if (together.task, together.seen) == (alone.task, alone.seen)
)


def figure(runs: Sequence[Run]) -> BarChart:
    """The paper's Figure 2 from our runs, with its numbers, beside the paper's own.

    Each task is compared on the languages that both of its mixtures hold: cross-lingual QA on the six that
    the joint mixture trains.
    """
    lines = by_method(runs, METHODS, [JOINT, *(alone.mixture for _, alone in _PAIRS)])
    columns = [_common(runs, *pair) for pair in _PAIRS]
    shown, bars = [], {}
    for method, alike in lines.items():
        joint = [run for run in alike if run.cfg.mixture.name == JOINT]
        scores = Scores(columns, {TOGETHER: joint, ALONE: [run for run in alike if run not in joint]})
        found = differences(scores, TOGETHER, ALONE)
        shown += difference_lines(method, found)
        bars[method] = [one.mean for one in found[:-1]]
    printed = {method: _printed(index) for index, method in enumerate(METHODS)}
    own = [(name, *(f"{value:+z.1f}" for value in values), DASH) for name, values in printed.items()]
    heads = [column.head for column in columns]
    cross_lingual = next(column.languages for column in columns if column.task == "qa_cross_lang")
    title = f"Figure 2: {TOGETHER.lower()} minus {ALONE.lower()} tuning"
    results = Table(
        title,
        tuple(map(Column, ("", *heads, "Avg."))),
        (Section("Ours", tuple(shown)), Section("The paper's own", tuple(own))),
        (
            "Differences in test scores on 0-100, on the languages that both mixtures hold "
            f"(cross-lingual QA: {', '.join(sorted(cross_lingual)) or 'none'}).",
            f"Paired by seed; {seeds(runs)}; {INTERVALS}",
            *selection(runs),
            "The paper's own: differences of its Tables 7-21 and 30-41, on the same languages.",
        ),
    )
    return BarChart(
        (results,), title=title, panels=(Bars("Ours", heads, bars), Bars("The paper's own", heads, printed))
    )


def _common(runs: Sequence[Run], together: ScoreColumn, alone: ScoreColumn) -> ScoreColumn:
    """The column of a task on either mixture, on the languages that both mixtures have scores of."""
    rows = [row for run in runs for row in run.rows]
    languages = [frozenset(filter(None, map(column.dataset, rows))) for column in (together, alone)]
    return replace(together, mixture=None, languages=languages[0] & languages[1])


def _printed(index: int) -> list[float]:
    """The paper's difference of each task for one method, on the languages that both of its tables have."""
    found = []
    for pair in _PAIRS:
        together, alone = (paper.table(column.appendix[index]).lines for column in pair)
        codes = (together.keys() & alone.keys()) - {"average"}
        found.append(fmean(together[code]["test"] - alone[code]["test"] for code in codes))
    return found
