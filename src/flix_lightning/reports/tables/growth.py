"""FLix minus compute-matched LoRA over the number of languages in the mixture (the paper's §6.3, finer)."""

from collections.abc import Sequence
from dataclasses import replace

from flix_lightning.reports import render
from flix_lightning.reports.render import Report, Section, Table
from flix_lightning.reports.tables import differences
from flix_lightning.reports.tables.scores import ScoreColumn, Scores, missing_runs
from flix_lightning.runs.run import Run

MIXTURES = ("joint_5", "joint_10", "joint_20", "joint")
TASKS = {
    "ner": "NER",
    "semantic_parsing": "Semantic Parsing",
    "qa_in_lang": "QA InLang",
    "qa_cross_lang": "QA CrossLang",
}


def table(runs: Sequence[Run], missing: Sequence[str] = ()) -> Report:
    """The difference with its intervals for each size of the mixture, on two sets of its seen datasets.

    Args:
        runs: FLix and compute-matched LoRA on mixtures of `MIXTURES`.
        missing: names of the table's runs that are not there; the table is made without them and says so.

    Raises:
        UserError: runs that contradict each other (see `Scores`).
    """
    trained = {
        name: {language for entry in run.cfg.mixture.train for language in entry.languages}
        for name in MIXTURES
        for run in runs
        if run.cfg.mixture.name == name
    }
    smallest = frozenset(min(trained.values(), key=len, default=()))
    sections = []
    for title, languages in (
        ("On every language of the mixture", None),
        (f"On the languages of the smallest ({', '.join(sorted(smallest))})", smallest),
    ):
        lines = []
        for name in trained:
            columns = [ScoreColumn(head, task, "seen", name) for task, head in TASKS.items()]
            scores = Scores([replace(column, languages=languages) for column in columns], runs)
            (_, *means), over_seeds, over_languages = differences.lines(scores, "FLix", "Compute-matched")
            lines.append((f"{len(trained[name])} languages ({name})", *means))
            lines += [over_seeds, over_languages]
        sections.append(Section(title, tuple(lines)))
    heads = ("", *TASKS.values(), "Avg.")
    seeds = sorted({row.seed for run in runs for row in run.rows})
    note = (
        f"FLix minus compute-matched LoRA in test scores, by seed; seeds: {', '.join(map(str, seeds))}; "
        "95 % intervals: Student's t over seeds, and a paired bootstrap over languages and their examples."
    )
    title = "FLix minus compute-matched LoRA, by the number of languages in the mixture"
    results = Table(title, tuple(map(render.Column, heads)), tuple(sections), (note,))
    return Report((results,), missing_runs(missing))
