"""Tables 6-50, the paper's appendices C and D: the datasets behind a column of Table 1 or 2."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from flix_lightning.reports import paper
from flix_lightning.reports.columns import APPENDIX, METHODS, TABLE1, ScoreColumn
from flix_lightning.reports.paper import Footnotes
from flix_lightning.reports.render import Column, Report, Section, Table
from flix_lightning.reports.tables.methods import by_method, explain
from flix_lightning.reports.tables.scores import Scores, mean
from flix_lightning.runs.run import Run

SPLITS = ("validation", "test")
_TASKS = {
    "SemParse": "semantic_parsing",
    "QA-InLang": "qa_in_lang",
    "QA-CrossLang": "qa_cross_lang",
    "NER": "ner",
}
"""The paper's name of a task, in tables that have a line for each task -> ours."""


def table(number: int, runs: Sequence[Run]) -> Report:
    """One of the paper's Tables 6-50 from our runs, beside the paper's own.

    Args:
        number: the paper's.
        runs: of the table's method; on one mixture, or a run for each of its datasets (Single-Lang and
            Single-Task); one for each seed.

    Raises:
        UserError: a run is of another method, or runs contradict each other (see `Scores`).
    """
    column, method = APPENDIX[number]
    lines = by_method(runs, [method], [run.cfg.mixture.name for run in runs])
    title = f"Table {number}: {paper.table(number).caption.rstrip('.')}"
    # On any mixture, so that runs on single datasets count.
    return Report((_datasets(title, replace(column, mixture=None), lines, {method: number}, SPLITS),))


def table1_languages(runs: Sequence[Run]) -> Report:
    """The languages behind each column of Table 1 (the paper's Tables 30-50), one table a column.

    Raises:
        UserError: as `methods.report`.
    """
    lines = by_method(runs, METHODS, [column.mixture for column in TABLE1])
    tables = []
    for column in TABLE1:
        title = f"{column.head} (the paper's Tables {min(column.appendix)}-{max(column.appendix)})"
        numbers = dict(zip(METHODS, column.appendix, strict=True))
        tables.append(_datasets(title, column, lines, numbers, ["test"]))
    return Report(tuple(tables), Scores(TABLE1, lines).gaps())


def _datasets(
    title: str,
    column: ScoreColumn,
    runs: Mapping[str, Sequence[Run]],
    numbers: Mapping[str, int],
    paper_splits: Sequence[str],
) -> Table:
    """Every dataset of a column, by method; `numbers` are the paper's tables of the methods."""
    test, validation = Scores([column], runs), Scores([column], runs, "validation")
    splits = ({"validation": validation} if validation.seeds else {}) | {"test": test}
    printed = {method: paper.table(number) for method, number in numbers.items()}
    footnotes = Footnotes(*printed.values())

    def ours(scores: Scores, method: str, name: str) -> str:
        if name == "average":
            return mean(scores.by_seed(column, method).values())
        by_seed = [scores.by_language(column, method, seed) for seed in scores.seeds]
        return mean([found[own] for found in by_seed if (own := _TASKS.get(name, name)) in found])

    def line(name: str) -> tuple[str, ...]:
        cells = [name]
        for method, theirs in printed.items():
            cells += [ours(scores, method, name) for scores in splits.values()]
            cells += [footnotes.cell(theirs, name, split) for split in paper_splits]
        return tuple(cells)

    names = dict.fromkeys(name for name in next(iter(printed.values())).lines if name != "average")
    known = {_TASKS.get(name, name) for name in names}
    names |= dict.fromkeys(name for name in test.languages(column) if name not in known)
    heads = [*splits, *(f"paper's {split}" for split in paper_splits)]
    return Table(
        title,
        (
            Column("Language" if column.task else "Task"),
            *(Column(head, method) for method in printed for head in heads),
        ),
        (Section("", tuple(map(line, names))), Section("", (line("average"),))),
        (
            *explain("Scores", [run for alike in runs.values() for run in alike]),
            "Each average is over what stands in its own column.",
            *footnotes.lines,
        ),
    )
