"""Table 3: the effect of feature dropout on in-language QA."""

from collections.abc import Sequence

from flix_lightning.reports import paper, render
from flix_lightning.reports.chart import Curves, means
from flix_lightning.reports.render import Report, Section, Table
from flix_lightning.reports.tables.printed import Footnotes, printed_cell
from flix_lightning.reports.tables.scores import DASH, ScoreColumn, Scores, mean, missing_runs
from flix_lightning.runs.run import Run

COLUMN = ScoreColumn("QA InLang", "qa_in_lang", "seen", "multilingual_qa_in_lang")
SPLITS = ("validation", "test")


def table(runs: Sequence[Run], missing: Sequence[str] = ()) -> Report:
    """The paper's Table 3 from our runs of any dropouts, beside the paper's own, the highest first.

    Args:
        runs: FLix on the multilingual in-language QA mixture; one run for each dropout and seed.
        missing: names of the table's runs that are not there; the table is made without them and says so.

    Raises:
        UserError: runs that contradict each other (see `Scores`).
    """
    theirs, footnotes = paper.table(3), Footnotes()
    found = _by_rate(runs)
    lines, seeds = [], set()
    for rate in sorted({*map(_rate, theirs.rows), *found}, reverse=True):
        ours = [_by_seed(found.get(rate, ()), split) for split in SPLITS]
        seeds |= {seed for by_seed in ours for seed in by_seed}
        cells = [mean(by_seed.values()) for by_seed in ours]
        share = {
            row.value
            for run in found.get(rate, ())
            for row in run.rows
            if row.metric == "share_without_features"
        }
        cells.append(f"{max(share):.0%}" if share else DASH)
        cells += [printed_cell(theirs, f"p={rate}", split.title(), footnotes) for split in SPLITS]
        lines.append((f"p = {rate:g}", *cells))
    heads = [render.Column(""), *(render.Column(split.title()) for split in SPLITS)]
    heads.append(render.Column("Examples without an active feature"))
    heads += [render.Column(split.title(), "The paper's own") for split in SPLITS]
    explained = (
        "Token F1 on 0-100, macro averages over languages; seeds: "
        f"{', '.join(map(str, sorted(seeds))) or 'none'}; mean ± half of the 95 % t-interval over seeds.",
    )
    title = "Table 3: effects of feature dropout on in-language QA"
    results = Table(title, tuple(heads), (Section("", tuple(lines)),), (*explained, *footnotes.lines))
    return Report((results,), missing_runs(missing))


def curves(runs: Sequence[Run]) -> tuple[Curves, ...]:
    """Both splits over dropout, of our runs and the paper's; `runs` and Raises: as `table`."""
    found = sorted(_by_rate(runs).items())
    printed = sorted((_rate(name), row) for name, row in paper.table(3).rows.items())
    ours = {split: [(rate, _by_seed(some, split).values()) for rate, some in found] for split in SPLITS}
    theirs = {split: [(rate, [row[split.title()]]) for rate, row in printed] for split in SPLITS}
    axes = ("feature dropout", "token F1, 0-100")
    return tuple(
        Curves(title, *axes, {name: means(points) for name, points in lines.items()})
        for title, lines in (("Ours", ours), ("The paper's own", theirs))
    )


def _by_rate(runs: Sequence[Run]) -> dict[float, list[Run]]:
    found: dict[float, list[Run]] = {}
    for run in runs:
        found.setdefault(float(run.cfg.flix.dropout), []).append(run)
    return found


def _by_seed(runs: Sequence[Run], split: str) -> dict[int, float]:
    """Seed -> the score of the runs of one dropout."""
    return Scores([COLUMN], runs, split).by_seed(COLUMN, "FLix")


def _rate(row: str) -> float:
    """The dropout of a row of the paper."""
    return float(row.removeprefix("p="))
