"""Figure 2: what each method gains or loses when all tasks are learned together (the paper's §6.3)."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from flix_lightning.reports import paper, render
from flix_lightning.reports.chart import BarChart, Panel
from flix_lightning.reports.render import Section, Table
from flix_lightning.reports.tables import differences, methods, table1, table2
from flix_lightning.reports.tables.scores import DASH, ScoreColumn, Scores, missing_runs
from flix_lightning.runs.rows import Row
from flix_lightning.runs.run import Run

TOGETHER, ALONE = "Multitask multilingual", "Multilingual"

#: Table 1's and Table 2's column of each task.
_PAIRS = tuple(
    (together, alone)
    for together in table1.COLUMNS
    for alone in table2.COLUMNS
    if (together.task, together.seen) == (alone.task, alone.seen)
)


def figure(runs: Sequence[Run], missing: Sequence[str] = ()) -> BarChart:
    """The paper's Figure 2 from our runs, with its numbers, beside the paper's own.

    Each task is compared on the languages that both of its mixtures hold: cross-lingual QA on the six that
    the joint mixture trains.

    Args:
        runs: all of the figure's runs.
        missing: names of the figure's runs that are not there; it is made without them and says so.

    Raises:
        UserError: runs that do not belong to this figure, or contradict each other (see `Scores`).
    """
    mixtures = [table1.JOINT, *(alone.mixture for _, alone in _PAIRS)]
    methods.check(runs, method=tuple(methods.PAPER_ROWS), mixture=mixtures)
    swapped = [replace(run, rows=[_swapped(row) for row in run.rows if row.task]) for run in runs]
    common = {together.task: _common_languages(runs, together, alone) for together, alone in _PAIRS}
    lines, bars = [], {}
    for method in methods.PAPER_ROWS:
        columns = [
            replace(together, mixture=f"{method}/{together.task}", languages=common[together.task])
            for together, _ in _PAIRS
        ]
        scores = Scores(columns, swapped)
        (_, *means), *intervals = differences.lines(scores, TOGETHER, ALONE)
        lines += [(method, *means), *intervals]
        bars[method] = [
            _paired(scores.by_seed(column, TOGETHER), scores.by_seed(column, ALONE)) for column in columns
        ]
    printed = {method: _printed(index) for index, method in enumerate(methods.PAPER_ROWS)}
    heads = [together.head for together, _ in _PAIRS]
    shown = ", ".join(sorted(common["qa_cross_lang"])) or "none"
    seeds = ", ".join(map(str, sorted({row.seed for run in runs for row in run.rows}))) or "none"
    title = f"Figure 2: {TOGETHER.lower()} minus {ALONE.lower()} tuning"
    results = Table(
        title,
        tuple(map(render.Column, ("", *heads, "Avg."))),
        (
            Section("Ours", tuple(lines)),
            Section(
                "The paper's own",
                tuple((name, *(f"{value:+z.1f}" for value in line), DASH) for name, line in printed.items()),
            ),
        ),
        (
            "Differences in test scores on 0-100, on the languages that both mixtures hold "
            f"(cross-lingual QA: {shown}).",
            f"Paired by seed; seeds: {seeds}; 95 % intervals: Student's t over seeds (two or more), and a "
            "paired bootstrap over languages and their examples.",
            "The paper's own: differences of its Tables 7-21 and 30-41, on the same languages.",
        ),
    )
    panels = (Panel("Ours", heads, bars), Panel("The paper's own", heads, printed))
    return BarChart((results,), missing_runs(missing), title, panels)


def _swapped(row: Row) -> Row:
    """The same score, its mixture in the place of a method, as mixtures are what is compared here."""
    method = TOGETHER if row.mixture == table1.JOINT else ALONE
    return replace(row, method=method, mixture=f"{row.method}/{row.task}")


def _common_languages(runs: Sequence[Run], *columns: ScoreColumn) -> frozenset[str]:
    found = [
        {
            row.language
            for run in runs
            for row in run.rows
            if (row.mixture, row.task, row.seen) == (column.mixture, column.task, column.seen)
        }
        for column in columns
    ]
    return frozenset.intersection(*map(frozenset, found))


def _paired(ours: dict[int, float], theirs: dict[int, float]) -> float | None:
    found = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    return fmean(found) if found else None


def _printed(index: int) -> list[float]:
    """The paper's difference of each task for one method, on the languages that both of its tables have."""
    found = []
    for pair in _PAIRS:
        together, alone = (paper.table(column.appendix[index]).rows for column in pair)
        codes = (together.keys() & alone.keys()) - {"average"}
        found.append(fmean(together[code]["test"] - alone[code]["test"] for code in codes))
    return found
