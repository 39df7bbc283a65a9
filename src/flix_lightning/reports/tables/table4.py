"""Table 4: the rank of FLix's language features (the paper's §6.2)."""

from collections.abc import Sequence

from flix_lightning.reports import paper
from flix_lightning.reports.chart import Curves, means
from flix_lightning.reports.render import Report
from flix_lightning.reports.tables import methods, table2
from flix_lightning.reports.tables.scores import Scores
from flix_lightning.runs.run import Run

# Its rank-2 row is FLix in Table 2's multilingual columns, in another order.
COLUMNS = tuple(
    next(column for column in table2.COLUMNS if column.head == head) for head in paper.table(4).columns
)


def table(runs: Sequence[Run], missing: Sequence[str] = ()) -> Report:
    """The paper's Table 4 from our runs of FLix with any ranks, with the paper's rows below them.

    Args:
        runs: FLix on the multilingual mixtures; one run for each rank, mixture and seed.
        missing: names of the table's runs that are not there; the table is made without them and says so.

    Raises:
        UserError: runs that do not belong to this table, or contradict each other (see `Scores`).
    """
    methods.check(runs, method=("FLix",), mixture=[column.mixture for column in COLUMNS])
    ranked = [_named_by_rank(run) for run in runs]
    theirs = list(paper.table(4).rows)
    found = sorted({row.method for run in ranked for row in run.rows} - {*theirs})
    scores = Scores(COLUMNS, ranked)
    results = methods.table(
        4,
        "Table 4: effect of the rank of language features in FLix",
        scores,
        {name: name for name in (*theirs, *found)},
        ours=theirs[0],
    )
    return Report((results,), methods.warnings(scores, (*theirs, *found), missing))


def curves(runs: Sequence[Run]) -> tuple[Curves, ...]:
    """Every column over the rank, of our runs and the paper's; `runs` and Raises: as `table`."""
    ranked = [_named_by_rank(run) for run in runs]
    scores = Scores(COLUMNS, ranked)
    found = sorted({row.method for run in ranked for row in run.rows}, key=_rank)
    rows = sorted(paper.table(4).rows.items(), key=lambda row: _rank(row[0]))
    ours = {
        column.head: [(_rank(name), scores.by_seed(column, name).values()) for name in found]
        for column in COLUMNS
    }
    theirs = {column.head: [(_rank(name), [row[column.head]]) for name, row in rows] for column in COLUMNS}
    axes = ("rank of language features", "test score, 0-100")
    return tuple(
        Curves(title, *axes, {name: means(points) for name, points in lines.items()})
        for title, lines in (("Ours", ours), ("The paper's own", theirs))
    )


def _rank(name: str) -> int:
    """The rank that a row is named after."""
    return int(name.removeprefix("rank "))


def _named_by_rank(run: Run) -> Run:
    """The same run, its method called after what varies here."""
    return run.under_name(f"rank {run.cfg.flix.ranks.language}")
