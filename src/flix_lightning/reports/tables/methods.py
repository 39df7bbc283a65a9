"""Methods side by side in several columns, with one method minus each other, beside the paper's own table."""

from collections.abc import Mapping, Sequence

from flix_lightning.common.errors import UserError
from flix_lightning.reports import paper, render
from flix_lightning.reports.render import Report, Section, Table
from flix_lightning.reports.tables import differences
from flix_lightning.reports.tables.printed import Footnotes, printed_cell
from flix_lightning.reports.tables.scores import DASH, ScoreColumn, Scores, mean, missing_runs
from flix_lightning.runs.run import Run

PAPER_ROWS = {name: name for name in ("Compute-matched", "Param-matched", "FLix")}
"""The methods as our runs call them -> as the paper's Tables 1 and 2 do, in its order."""


def report(
    number: int,
    title: str,
    columns: Sequence[ScoreColumn],
    runs: Sequence[Run],
    missing: Sequence[str],
    methods: Mapping[str, str] = PAPER_ROWS,
    *,
    printed: Sequence[tuple[str, ...]] = (),
    notes: Sequence[str] = (),
) -> Report:
    """The table of the runs of these methods on the columns' mixtures, with its warnings.

    Args:
        columns: of test scores.
        runs: all of the table's runs.
        missing: names of the table's runs that are not there; the table is made without them and says so.
        number, title, methods, printed, notes: as `table`.

    Raises:
        UserError: runs that do not belong to this table, or contradict each other (see `Scores`).
    """
    known = tuple(methods)
    check(runs, method=known, mixture=tuple(dict.fromkeys(column.mixture for column in columns)))
    scores = Scores(columns, runs)
    results = table(number, title, scores, methods, printed=printed, notes=notes)
    return Report((results,), warnings(scores, known, missing))


def table(
    number: int,
    title: str,
    scores: Scores,
    methods: Mapping[str, str] = PAPER_ROWS,
    *,
    ours: str = "FLix",
    controls: Sequence[tuple[str, ...]] = (),
    printed: Sequence[tuple[str, ...]] = (),
    notes: Sequence[str] = (),
) -> Table:
    """The paper's table of that number from our scores, with the paper's rows below them.

    Args:
        number: the paper's; heads of columns and names of rows are as it prints them.
        title: above it.
        scores: test scores by column.
        methods: our method -> the paper's row, in the paper's order.
        ours: the method that each other one is subtracted from.
        controls: further rows of ours, each a name, a text a column and one for the average.
        printed: the same of the paper.
        notes: what further the reader must know.
    """
    theirs, footnotes = paper.table(number), Footnotes()
    heads = [column.head for column in scores.columns] + ["Avg."]
    lines = [means(method, scores) for method in methods]
    counts = [str(len(scores.languages(column))) for column in scores.columns]
    name = "Languages" if all(column.task for column in scores.columns) else "Languages or tasks"
    others = [method for method in methods if method != ours]
    minus = [line for other in others for line in differences.lines(scores, ours, other)]
    own = [(row, *(printed_cell(theirs, row, head, footnotes) for head in heads)) for row in methods.values()]
    sections = [
        Section("Methods", (*lines, (name, *counts, DASH))),
        Section(f"{ours} minus", tuple(minus)),
        *([Section("Controls", tuple(controls))] if controls else []),
        Section("The paper's own", (*own, *printed)),
    ]
    seeds = ", ".join(map(str, scores.seeds)) or "none"
    spread = "; mean ± half of the 95 % t-interval over seeds" if len(scores.seeds) > 1 else ""
    explained = (
        f"Test scores on 0-100, macro averages over languages; seeds: {seeds}{spread}.",
        f"{ours} minus another: paired by seed; below it 95 % intervals, Student's t over seeds (two or more)"
        " and a paired bootstrap over languages and their examples.",
        *notes,
        "The paper's own: PaLM-2 small on XTREME-UP; another base or other data give another level.",
    )
    groups = [column.group for column in scores.columns] + [""]
    columns = (render.Column(""), *map(render.Column, heads, groups))
    return Table(title, columns, tuple(sections), (*explained, *footnotes.lines))


def means(method: str, scores: Scores, active: str = "all", name: str = "") -> tuple[str, ...]:
    """A row of a method's means over seeds, with their average, under its own or another name."""
    return (name or method, *(mean(seeds.values()) for seeds in scores.line(method, active)))


def check(runs: Sequence[Run], **known: Sequence[str]) -> None:
    """See that every row's fields, as `method` and `mixture`, are among those that a table knows.

    Raises:
        UserError: the first that is not.
    """
    for row in (row for run in runs for row in run.rows):
        for key, values in known.items():
            if (value := getattr(row, key)) not in values:
                names = ", ".join(values)
                raise UserError(f"run {row.run}: {key} {value!r} is none of this table's ({names})")


def warnings(scores: Scores, methods: Sequence[str], missing: Sequence[str]) -> tuple[str, ...]:
    """What keeps a cell from being what its column says, `missing` runs first."""
    found = list(missing_runs(missing))
    for method in methods:
        for seed in scores.seeds:
            absent = []
            for column in scores.columns:
                have, expected = scores.by_language(column, method, seed), scores.languages(column)
                lacking = [language for language in expected if language not in have]
                if not have and expected:
                    absent.append(column.head)
                elif lacking:
                    found.append(
                        f"{method}, seed {seed}, is left out of {column.head}: it lacks {', '.join(lacking)}"
                    )
            if absent:
                found.append(f"{method}, seed {seed}, has no scores for {', '.join(absent)}")
    return tuple(found)
