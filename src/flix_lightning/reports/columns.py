"""The columns of the paper's Tables 1 and 2, and the tables of its appendix that show their datasets.

`train.py` imports this module at its start, so it imports nothing large.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ScoreColumn:
    """A column of scores: the macro average over the languages of one task, or over tasks.

    Attributes:
        head: as in the paper.
        task: the evaluated task. None is every task of a mixture of one language: the macro average is then
            over tasks, and a task's name stands wherever a language's does.
        seen: what the evaluated datasets are to the training mixture, as in a result row.
        mixture: name of the training mixture; None is any.
        group: the heading above the column, as in the paper, or none.
        appendix: numbers of the paper's tables of its datasets, one for each of `METHODS`, or none.
        single: number of the paper's table of one LoRA for each of its datasets (§5.2), or None.
        languages: the languages that count; None is all.
    """

    head: str
    task: str | None
    seen: str
    mixture: str | None
    group: str = ""
    appendix: tuple[int, ...] = ()
    single: int | None = None
    languages: frozenset[str] | None = None

    @property
    def name(self) -> str:
        """The heading and the head, as one text."""
        return f"{self.group}: {self.head}".removeprefix(": ")

    def dataset(self, row: Any) -> str | None:
        """Name under which a result row counts in this column: its language, or its task; or None."""
        name = row.language if self.task else row.task
        pairs = ((self.task, row.task), (self.mixture, row.mixture), (self.seen, row.seen))
        counts = self.languages is None or name in self.languages
        return name if counts and all(own in (None, other) for own, other in pairs) else None


METHODS = {"Compute-matched": "compute_matched", "Param-matched": "param_matched", "FLix": "flix"}
"""The methods of Tables 1 and 2, in the paper's order, each with its choice of conf/flix."""

JOINT, HOLDOUT = "joint", "semantic_parsing_holdout"

HEADS = {
    "ner": "NER",
    "semantic_parsing": "Semantic Parsing",
    "qa_in_lang": "QA InLang",
    "qa_cross_lang": "QA CrossLang",
}
"""Task -> head of its column of datasets that were trained on."""


def _joint(task: str, first: int, seen="seen", mixture=JOINT, head=None) -> ScoreColumn:
    group = "" if seen == "seen" else "Zero-shot"
    return ScoreColumn(head or HEADS[task], task, seen, mixture, group, (first, first + 1, first + 2))


def _alone(head: str, task: str | None, mixture: str, group: str, first: int) -> ScoreColumn:
    return ScoreColumn(head, task, "seen", mixture, group, (first + 1, first + 2, first + 3), first)


TABLE1 = (
    _joint("ner", 39),
    _joint("semantic_parsing", 36),
    _joint("qa_in_lang", 33),
    _joint("qa_cross_lang", 30),
    _joint("qa_cross_lang", 42, "unseen_combination", head="Unseen Comb: QA CrossLang"),
    _joint("semantic_parsing", 45, "unseen_combination", HOLDOUT, "Unseen Comb: Semantic parsing"),
    _joint("qa_cross_lang", 48, "unseen_language", head="Unseen Lang: QA CrossLang"),
)

TABLE2 = (
    *(
        _alone(HEADS[task], task, f"multilingual_{task}", "Multilingual", first)
        for task, first in (("ner", 18), ("semantic_parsing", 14), ("qa_in_lang", 10), ("qa_cross_lang", 6))
    ),
    _alone("Swahili", None, "multitask_sw", "Multitask", 22),
    _alone("Bengali", None, "multitask_bn", "Multitask", 26),
)

APPENDIX = {
    number: (column, method)
    for column in (*TABLE1, *TABLE2)
    for number, method in zip(column.appendix, METHODS, strict=True)
} | {column.single: (column, "Compute-matched") for column in TABLE2}
"""Number of a table of the paper's appendices C and D (6-50) -> the column and the method it shows."""
