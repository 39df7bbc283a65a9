"""Tables 6-50, the paper's appendices C and D: the datasets behind a column of Table 1 or 2."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

from flix_lightning.reports import paper
from flix_lightning.reports.columns import APPENDIX, ScoreColumn
from flix_lightning.reports.paper import Footnotes
from flix_lightning.reports.render import Column, Report, Section, Table
from flix_lightning.reports.tables.methods import by_method, explain, mark_best
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
    """One of the paper's Tables 6-50 from our runs of its method, beside the paper's own.

    They are on one mixture, or one for each of its datasets (Single-Lang, Single-Task); one for each seed.
    """
    column, method = APPENDIX[number]
    lines = by_method(runs, [method], [run.cfg.mixture.name for run in runs])
    title = f"Table {number}: {paper.table(number).caption.rstrip('.')}"
    # On any mixture, so that runs on single datasets count.
    shown = datasets(title, replace(column, mixture=None), lines, {method: number}, SPLITS)
    return datasets_report([shown], lines)


def datasets_report(
    tables: Sequence[Table], runs: Mapping[str, Sequence[Run]], warnings: Sequence[str] = ()
) -> Report:
    """Tables of `datasets` of some runs, with what explains all of them below the last."""
    *first, last = tables
    notes = (
        *explain("Scores", [run for alike in runs.values() for run in alike]),
        "Each average is over what stands in its own column.",
    )
    return Report((*first, replace(last, footnotes=(*notes, *last.footnotes))), tuple(warnings))


def datasets(
    title: str,
    column: ScoreColumn,
    runs: Mapping[str, Sequence[Run]],
    numbers: Mapping[str, int] | None = None,
    paper_splits: Sequence[str] = (),
    splits: Sequence[str] = SPLITS,
) -> Table:
    """Every dataset of a column, by method or any other name; raises UserError as `Scores`.

    Args:
        runs: name -> its finished runs.
        numbers: name -> number of the paper's table to show beside it.
        paper_splits: the columns of the paper's tables to show.
        splits: the splits of ours, where they have scores.
    """
    scores = {split: Scores([column], runs, split) for split in splits}
    scores = {split: one for split, one in scores.items() if one.seeds or split == "test"}
    printed = {method: paper.table(number) for method, number in (numbers or {}).items()}
    footnotes = Footnotes(*printed.values())

    def ours(split: Scores, line: str, name: str) -> str:
        if name == "average":
            return mean(split.by_seed(column, line).values())
        return mean(split.of_language(column, line, _TASKS.get(name, name)))

    def cells(name: str) -> tuple[str, ...]:
        by_split = [mark_best([ours(split, line, name) for line in runs]) for split in scores.values()]
        own = [[footnotes.cell(printed[line], name, split) for line in printed] for split in paper_splits]
        return (name, *chain.from_iterable(zip(*by_split, *own, strict=True)))

    theirs = next(iter(printed.values())).lines if printed else {}
    names = dict.fromkeys(name for name in theirs if name != "average")
    known = {_TASKS.get(name, name) for name in names}
    names |= dict.fromkeys(name for name in scores["test"].languages(column) if name not in known)
    heads = [*scores, *(f"paper's {split}" for split in paper_splits)]
    columns = [Column(head, line) for line in runs for head in heads] if heads[1:] else map(Column, runs)
    sections = (Section("", tuple(map(cells, names))), Section("", (cells("average"),)))
    return Table(title, (Column("Language" if column.task else "Task"), *columns), sections, footnotes.lines)
