"""Lines of scores in several columns, with one line minus each other, beside the paper's own table."""

from collections.abc import Iterable, Mapping, Sequence

from flix_lightning.common.errors import UserError
from flix_lightning.reports import paper
from flix_lightning.reports.columns import METHODS, ScoreColumn
from flix_lightning.reports.paper import DASH, Footnotes
from flix_lightning.reports.render import Best, Column, Report, Section, Table
from flix_lightning.reports.tables.differences import differences, texts
from flix_lightning.reports.tables.scores import Scores, mean
from flix_lightning.runs.run import Run

INTERVALS = (
    "95 % intervals: Student's t over seeds (two or more), and a paired bootstrap over languages and their "
    "examples."
)
_SELECTION = {
    "task": "each task is tested with the checkpoint of its best validation",
    "average": "all tasks are tested with the checkpoint of the best average of their validations",
}
_PAPER_NAMES = {method: method for method in METHODS}


def report(
    number: int, title: str, columns: Sequence[ScoreColumn], runs: Sequence[Run], names=_PAPER_NAMES, **more
) -> Report:
    """The table of the methods in `names` on the columns' mixtures.

    Args:
        number, title, names, more: as `table`.
        columns: of test scores.
        runs: all of the table's finished runs.

    Raises:
        UserError: a run is not of this table, or runs contradict each other (see `Scores`).
    """
    scores = Scores(columns, by_method(runs, names, [column.mixture for column in columns]))
    return Report((table(number, title, scores, names, **more),), scores.gaps())


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


def table(
    number: int,
    title: str,
    scores: Scores,
    names: Mapping[str, str] = _PAPER_NAMES,
    *,
    ours: str = "FLix",
    controls: Sequence[tuple[str, ...]] = (),
    printed: Sequence[tuple[str, ...]] = (),
    notes: Sequence[str] = (),
) -> Table:
    """The paper's table of that number from our scores, with the paper's own lines below ours.

    Args:
        number: the paper's; heads of columns and names of lines are as it prints them.
        title: above it.
        scores: test scores.
        names: each line of `scores` -> the paper's line, in the paper's order.
        ours: the line that each other one is subtracted from.
        controls: further lines of ours, each a name, a text for each column, and one for the average.
        printed: the same of the paper.
        notes: what else the reader must know.
    """
    theirs = paper.table(number)
    footnotes = Footnotes(theirs)
    heads = [*(column.head for column in scores.columns), "Avg."]
    counts = [str(len(scores.languages(column))) for column in scores.columns]
    counted = "Languages" if all(column.task for column in scores.columns) else "Languages or tasks"
    others = [name for name in names if name != ours]
    minus = [line for other in others for line in texts(other, differences(scores, ours, other))]
    own = [(name, *(footnotes.cell(theirs, name, head) for head in heads)) for name in names.values()]
    sections = [
        Section("Methods", (*mark_best([means(line, scores) for line in names]), (counted, *counts, DASH))),
        Section(f"{ours} minus", tuple(minus)),
        Section("Controls", tuple(controls)),
        Section("The paper's own", (*own, *printed)),
    ]
    explained = (
        *explain("Test scores", [run for alike in scores.runs.values() for run in alike]),
        f"{ours} minus another is paired by seed; {INTERVALS}",
        *notes,
        "The paper's own: PaLM-2 small on XTREME-UP; another base or other data give another level.",
    )
    groups = [*(column.group for column in scores.columns), ""]
    columns = (Column(""), *map(Column, heads, groups))
    shown = tuple(section for section in sections if section.lines)
    return Table(title, columns, shown, (*explained, *footnotes.lines))


def means(line: str, scores: Scores, active: str = "all", name: str = "") -> tuple[str, ...]:
    """Texts of a line's means over seeds, with their average, under its own or another name."""
    return (name or line, *(mean(by_seed.values()) for by_seed in scores.line(line, active)))


def mark_best(lines: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Mark the best score of each column, as it is shown, where two lines or more have one."""
    names, *columns = zip(*lines, strict=True)
    marked = []
    for cells in columns:
        shown = [float(cell.split()[0]) for cell in cells if cell != DASH]
        best = f"{max(shown):.1f}" if len(shown) > 1 else None
        marked.append([Best(cell) if cell.split()[0] == best else cell for cell in cells])
    return list(zip(names, *marked, strict=True))


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
