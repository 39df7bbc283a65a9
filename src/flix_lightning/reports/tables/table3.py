"""Table 3: the effect of feature dropout on in-language QA."""

from collections import defaultdict
from collections.abc import Sequence

from flix_lightning.common.errors import UserError
from flix_lightning.common.settings import plain
from flix_lightning.reports import paper
from flix_lightning.reports.chart import Curves, means
from flix_lightning.reports.columns import HEADS, ScoreColumn
from flix_lightning.reports.paper import DASH, Footnotes
from flix_lightning.reports.render import Column, Report, Section, Table
from flix_lightning.reports.tables.methods import explain
from flix_lightning.reports.tables.scores import Scores, mean
from flix_lightning.runs.run import Run

COLUMN = ScoreColumn(HEADS["qa_in_lang"], "qa_in_lang", "seen", "multilingual_qa_in_lang")
SPLITS = ("validation", "test")


def table(runs: Sequence[Run]) -> Report:
    """The paper's Table 3 from our runs of any dropouts, beside the paper's own, the highest first."""
    theirs, by_rate = paper.table(3), _by_rate(runs)
    footnotes = Footnotes(theirs)
    splits = [Scores([COLUMN], by_rate, split) for split in SPLITS]
    lines = []
    for rate in sorted({*map(_rate, theirs.lines), *by_rate}, reverse=True):
        ours = [mean(scores.by_seed(COLUMN, rate).values()) for scores in splits]
        without = [run.facts["share_without_features"] for run in by_rate.get(rate, ())]
        share = f"{max(without):.0%}" if without else DASH
        own = [footnotes.cell(theirs, f"p={rate}", split.title()) for split in SPLITS]
        lines.append((f"p = {rate:g}", *ours, share, *own))
    heads = (
        *map(Column, ("", "Validation", "Test", "Examples without an active feature")),
        *(Column(split.title(), "The paper's own") for split in SPLITS),
    )
    notes = (*explain("Token F1", runs), *footnotes.lines)
    title = "Table 3: effects of feature dropout on in-language QA"
    return Report((Table(title, heads, (Section("", tuple(lines)),), notes),))


def curves(runs: Sequence[Run]) -> tuple[Curves, ...]:
    """Both splits over dropout, of our runs and the paper's."""
    by_rate, ours, theirs = _by_rate(runs), {}, {}
    for split in SPLITS:
        scores = Scores([COLUMN], by_rate, split)
        ours[split] = means((rate, scores.by_seed(COLUMN, rate).values()) for rate in sorted(by_rate))
        own = ((_rate(name), line[split.title()]) for name, line in paper.table(3).lines.items())
        theirs[split] = sorted(own)
    axes = ("feature dropout", "token F1, 0-100")
    return Curves("Ours", *axes, ours), Curves("The paper's own", *axes, theirs)


def _by_rate(runs: Sequence[Run]) -> dict[float, list[Run]]:
    found = defaultdict(list)
    for run in runs:
        rate = plain(run.cfg.flix.dropout)
        if isinstance(rate, dict):
            raise UserError(f"{run.name}: flix.dropout is {rate}; Table 3 needs one rate for all kinds")
        found[float(rate)].append(run)
    return found


def _rate(line: str) -> float:
    return float(line.removeprefix("p="))
