"""Table 2: learning either in many languages or in many tasks (its languages: the paper's Tables 6-29)."""

from collections.abc import Sequence

from flix_lightning.reports import paper
from flix_lightning.reports.render import Report
from flix_lightning.reports.tables import methods
from flix_lightning.reports.tables.scores import DASH, ScoreColumn
from flix_lightning.runs.run import Run

_LANGUAGES, _TASKS = "Multilingual", "Multitask"

COLUMNS = (
    ScoreColumn("NER", "ner", "seen", "multilingual_ner", _LANGUAGES, (19, 20, 21)),
    ScoreColumn(
        "Semantic Parsing",
        "semantic_parsing",
        "seen",
        "multilingual_semantic_parsing",
        _LANGUAGES,
        (15, 16, 17),
    ),
    ScoreColumn("QA InLang", "qa_in_lang", "seen", "multilingual_qa_in_lang", _LANGUAGES, (11, 12, 13)),
    ScoreColumn("QA CrossLang", "qa_cross_lang", "seen", "multilingual_qa_cross_lang", _LANGUAGES, (7, 8, 9)),
    ScoreColumn("Swahili", None, "seen", "multitask_sw", _TASKS, (23, 24, 25)),
    ScoreColumn("Bengali", None, "seen", "multitask_bn", _TASKS, (27, 28, 29)),
)

SINGLE_DATASET = {
    "NER": 18,
    "Semantic Parsing": 14,
    "QA InLang": 10,
    "QA CrossLang": 6,
    "Swahili": 22,
    "Bengali": 26,
}
"""Column -> the paper's table of one LoRA for each of its datasets (Single-Lang and Single-Task, §5.2)."""


def table(runs: Sequence[Run], missing: Sequence[str] = ()) -> Report:
    """The paper's Table 2 from our runs, with the paper's rows below them.

    Args: and Raises: as `methods.report`.
    """
    single = [paper.table(SINGLE_DATASET[column.head]).rows["average"]["test"] for column in COLUMNS]
    return methods.report(
        2,
        "Table 2: results of either multitask learning or multilingual learning",
        COLUMNS,
        runs,
        missing,
        printed=[("Single-Lang, Single-Task", *map(str, single), DASH)],
        notes=(
            "Swahili and Bengali: averages over their tasks, each on 0-100 by its own metric.",
            "Single-Lang, Single-Task: a LoRA for each dataset; the paper's Tables 6, 10, 14, 18, 22 and 26.",
        ),
    )
