"""Table 4: the rank of FLix's language features (the paper's §6.2)."""

from collections import defaultdict
from collections.abc import Sequence

from flix_lightning.common.errors import UserError
from flix_lightning.common.settings import plain
from flix_lightning.reports import paper
from flix_lightning.reports.chart import Curves, means
from flix_lightning.reports.columns import TABLE2
from flix_lightning.reports.render import Report
from flix_lightning.reports.tables.methods import by_method, paper_lines, report
from flix_lightning.reports.tables.scores import Scores
from flix_lightning.runs.run import Run

# Table 2's multilingual columns, in another order.
COLUMNS = tuple(next(column for column in TABLE2 if column.head == head) for head in paper.table(4).columns)


def table(runs: Sequence[Run]) -> Report:
    """The paper's Table 4 from our runs of FLix with any ranks, on the multilingual mixtures."""
    by_rank, theirs = _by_rank(runs), list(paper.table(4).lines)
    names = [*theirs, *sorted(by_rank.keys() - {*theirs})]
    own, footnotes = paper_lines(4, COLUMNS, theirs)
    return report(
        "Table 4: effect of the rank of language features in FLix",
        Scores(COLUMNS, {name: by_rank.get(name, []) for name in names}),
        minus=dict.fromkeys(names[1:], names[0]),
        more={"The paper's own": own},
        notes=footnotes,
    )


def curves(runs: Sequence[Run]) -> tuple[Curves, ...]:
    """Every column over the rank, of our runs and the paper's."""
    by_rank, printed = _by_rank(runs), paper.table(4).lines
    scores = Scores(COLUMNS, by_rank)
    ours, theirs = {}, {}
    for column in COLUMNS:
        found = ((_rank(name), scores.by_seed(column, name).values()) for name in by_rank)
        ours[column.head] = means(sorted(found, key=lambda point: point[0]))
        theirs[column.head] = sorted((_rank(name), line[column.head]) for name, line in printed.items())
    axes = ("rank of language features", "test score, 0-100")
    return Curves("Ours", *axes, ours), Curves("The paper's own", *axes, theirs)


def _rank(line: str) -> int:
    return int(line.removeprefix("rank "))


def _by_rank(runs: Sequence[Run]) -> dict[str, list[Run]]:
    found = defaultdict(list)
    for run in by_method(runs, ["FLix"], [column.mixture for column in COLUMNS])["FLix"]:
        rank = plain(run.cfg.flix.ranks.language)
        if isinstance(rank, dict):
            raise UserError(
                f"{run.name}: flix.ranks.language is {rank}; Table 4 needs one rank for all languages"
            )
        found[f"rank {rank}"].append(run)
    return found
