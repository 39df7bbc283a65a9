"""FLix minus compute-matched LoRA over the number of languages in the mixture (the paper's §6.3, finer)."""

from collections.abc import Sequence

from flix_lightning.reports.columns import HEADS, ScoreColumn
from flix_lightning.reports.render import Column, Report, Section, Table
from flix_lightning.reports.tables.differences import difference_lines, differences
from flix_lightning.reports.tables.methods import INTERVALS, by_method, seeds, selection
from flix_lightning.reports.tables.scores import Scores
from flix_lightning.runs.run import Run

MIXTURES = ("joint_5", "joint_10", "joint_20", "joint")
OURS, OTHER = "FLix", "Compute-matched"


def table(runs: Sequence[Run]) -> Report:
    """The difference with its intervals for each mixture of MIXTURES, on two sets of its seen datasets."""
    lines = by_method(runs, (OURS, OTHER), MIXTURES)
    trained = {
        name: {dataset.language for dataset in run.mixture.train}
        for name in MIXTURES
        for run in runs
        if run.cfg.mixture.name == name
    }
    smallest = frozenset(min(trained.values(), key=len, default=()))
    sections = {"On every language of the mixture": None}
    sections[f"On the languages of the smallest ({', '.join(sorted(smallest))})"] = smallest
    shown = []
    for title, languages in sections.items():
        found = []
        for name in trained:
            columns = [
                ScoreColumn(head, task, "seen", name, languages=languages) for task, head in HEADS.items()
            ]
            label = f"{len(trained[name])} languages ({name})"
            found += difference_lines(label, differences(Scores(columns, lines), OURS, OTHER))
        shown.append(Section(title, tuple(found)))
    heads = ("", *HEADS.values(), "Avg.")
    note = f"{OURS} minus compute-matched LoRA in test scores, paired by seed; {seeds(runs)}; {INTERVALS}"
    title = f"{OURS} minus compute-matched LoRA, by the number of languages in the mixture"
    return Report((Table(title, tuple(map(Column, heads)), tuple(shown), (note, *selection(runs))),))
