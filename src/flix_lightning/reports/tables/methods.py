"""Lines of scores in several columns, with one line minus each other, beside the paper's own table."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from flix_lightning.common.errors import UserError
from flix_lightning.reports import paper
from flix_lightning.reports.columns import METHODS, ScoreColumn
from flix_lightning.reports.paper import DASH, Footnotes
from flix_lightning.reports.render import Best, Column, Report, Section, Table
from flix_lightning.reports.tables.differences import difference_lines, differences, told_apart, unpaired
from flix_lightning.reports.tables.scores import Scores, mean
from flix_lightning.runs.run import Run

INTERVALS = (
    "95 % intervals: Student's t over seeds (two or more), and a paired bootstrap over languages and their "
    "examples."
)
FROZEN, TASK_ROWS = "Frozen base", "Task rows only"
CONTROLS = {
    FROZEN: ("FLix", "none"),
    TASK_ROWS: ("FLix", "task"),
    "Language rows only": ("FLix", "language"),
}
"""What else FLix's runs are tested as: the controls of `Scores`."""
_SELECTION = {
    "task": "each task is tested with the checkpoint of its best validation",
    "average": "all tasks are tested with the checkpoint of the best average of their validations",
}


def by_method(runs: Iterable[Run], methods: Iterable[str], mixtures: Iterable[str]) -> dict[str, list[Run]]:
    """Sort a table's runs by method; raise UserError for a run of another method or mixture."""
    found = {method: [] for method in methods}
    known = {"method": list(found), "mixture": list(dict.fromkeys(mixtures))}
    for run in runs:
        for key, value in (("method", run.method), ("mixture", run.cfg.mixture.name)):
            if value not in known[key]:
                names = ", ".join(known[key])
                raise UserError(f"{run.name}: {key} {value!r} is none of this table's ({names})")
        found[run.method].append(run)
    return found


def paper_lines(
    number: int, columns: Sequence[ScoreColumn], names: Iterable[str] = METHODS
) -> tuple[list[tuple[str, ...]], list[str]]:
    """The lines that the paper's table of that number calls by these names, and its footnotes.

    Where the columns are not all of that table's, there is no average and no remark on the table.
    """
    theirs = paper.table(number)
    heads = [column.head for column in columns]
    whole = {*heads} == {*theirs.columns} - {"Avg."}
    footnotes = Footnotes(*[theirs] if whole else [])
    cells = [*heads, "Avg." if whole else ""]
    lines = [(name, *(footnotes.cell(theirs, name, head) for head in cells)) for name in names]
    level = "The paper's own: PaLM-2 small on XTREME-UP; another base or other data give another level."
    return lines, [level, *footnotes.lines]


def report(
    title: str,
    scores: Scores,
    *,
    minus: Mapping[str, str] | None = None,
    settings: Mapping[str, Sequence[str]] | None = None,
    more: Mapping[str, Sequence[tuple[str, ...]]] | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """A table of lines of test scores, and of one line minus each other.

    Args:
        minus: line or control -> the line that it is subtracted from; FLix for every other line unless given.
        settings: head -> its text for each line, in the place of the lines' names.
        more: title -> further lines: a name, a text for each column, and one for the average.
        notes: what else the reader must know.
    """
    settings = settings or {"": list(scores.runs)}
    named = dict(zip(scores.runs, zip(*settings.values(), strict=True), strict=True))
    minus = dict.fromkeys((line for line in named if line != "FLix"), "FLix") if minus is None else minus
    blank = [""] * (len(settings) - 1)
    counts = [str(len(scores.languages(column))) for column in scores.columns]
    counted = "Languages" if all(column.task for column in scores.columns) else "Languages or tasks"
    columns = map(mark_best, zip(*(means(line, scores)[1:] for line in named), strict=True))
    lines = [(*texts, *cells) for texts, *cells in zip(named.values(), *columns, strict=True)]
    sections = defaultdict(list, {"Methods": lines, "": [(counted, *blank, *counts, DASH)]})
    found = {other: differences(scores, ours, other) for other, ours in minus.items()}
    for other, ours in minus.items():
        (_, *cells), *intervals = difference_lines(other, found[other])
        sections[f"{ours} minus"] += [
            (*named.get(other, (other, *blank)), *cells),
            *((name, *blank, *rest) for name, *rest in intervals),
        ]
    explained = explain("Test scores", [run for alike in scores.runs.values() for run in alike])
    heads = [*map(Column, settings), *(Column(column.head, column.group) for column in scores.columns)]
    tested = [*(column.head for column in scores.columns), "average"]
    # Methods and controls answer two questions, so each is corrected for its own number.
    families = [
        {line: found[line] for line in found if line in lines} for lines in (scores.runs, scores.controls)
    ]
    corrected = [note for family in families for note in told_apart(family, tested)]
    table = Table(
        title,
        (*heads, Column("Avg.")),
        tuple(Section(title, tuple(lines)) for title, lines in {**sections, **(more or {})}.items()),
        (
            *explained,
            f"Differences are paired by seed; {INTERVALS}",
            *unpaired(scores, minus),
            *corrected,
            *notes,
        ),
    )
    return Report((table,), scores.gaps())


def means(line: str, scores: Scores) -> tuple[str, ...]:
    """Texts of a line's means over seeds, with their average."""
    return (line, *(mean(by_seed.values()) for by_seed in scores.line(line)))


def controls(scores: Scores) -> tuple[list[tuple[str, ...]], str]:
    """The lines of `CONTROLS`, and the note that says what they are."""
    note = f"{', '.join(CONTROLS)}: evaluations of the FLix runs with nothing else on."
    return [means(name, scores) for name in CONTROLS], note


def mark_best(cells: Sequence[str]) -> list[str]:
    """Mark the best of some scores, as they are shown, where there are two or more."""
    shown = [float(cell.split()[0]) for cell in cells if cell != DASH]
    best = f"{max(shown):.1f}" if len(shown) > 1 else None
    return [Best(cell) if cell.split()[0] == best else cell for cell in cells]


def explain(what: str, runs: Sequence[Run]) -> list[str]:
    """Say what the scores are, over which seeds, and how the tested checkpoints were selected."""
    several = len({run.cfg.seed for run in runs}) > 1
    spread = "; mean ± half of the 95 % t-interval over seeds" if several else ""
    return [f"{what} on 0-100, macro averages over languages; {seeds(runs)}{spread}.", *selection(runs)]


def seeds(runs: Sequence[Run]) -> str:
    """The seeds of some runs."""
    return f"seeds: {', '.join(map(str, sorted({run.cfg.seed for run in runs}))) or 'none'}"


def selection(runs: Sequence[Run]) -> list[str]:
    """How the tested checkpoints of some runs were selected, by the runs' configs: one note, or none."""
    rules = {}
    for cfg in (run.cfg.evaluation for run in runs):
        examples = "all" if cfg.validation_cap is None else f"at most {cfg.validation_cap}"
        rules[f"{_SELECTION[cfg.selection]}, on {examples} validation examples of each dataset"] = None
    return [f"Selection: {'; in other runs '.join(rules)}."] if rules else []
