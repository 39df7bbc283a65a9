"""Table 1's columns on the lite mixture, with zero-shot in-language QA beside them."""

from collections.abc import Sequence

from flix_lightning.finished import Finished
from flix_lightning.render import Report
from flix_lightning.tables import methods
from flix_lightning.tables.scores import ScoreColumn, Scores

MIXTURE = "lite"

COLUMNS = (
    ScoreColumn("NER", "ner", "seen", MIXTURE),
    ScoreColumn("Semantic Parsing", "semantic_parsing", "seen", MIXTURE),
    ScoreColumn("QA InLang", "qa_in_lang", "seen", MIXTURE),
    ScoreColumn("QA CrossLang", "qa_cross_lang", "seen", MIXTURE),
    ScoreColumn("Unseen Comb: QA CrossLang", "qa_cross_lang", "unseen_combination", MIXTURE, "Zero-shot"),
    ScoreColumn(
        "Unseen Comb: Semantic parsing", "semantic_parsing", "unseen_combination", MIXTURE, "Zero-shot"
    ),
    ScoreColumn("Unseen Lang: QA CrossLang", "qa_cross_lang", "unseen_language", MIXTURE, "Zero-shot"),
    ScoreColumn("Unseen Lang: QA InLang", "qa_in_lang", "unseen_language", MIXTURE, "Zero-shot"),
)


def table(runs: Sequence[Finished], missing: Sequence[str] = ()) -> Report:
    """The three methods on the lite mixture, with the paper's Table 1 below them.

    Args:
        runs: all of the table's runs.
        missing: names of the table's runs that are not there; the table is made without them and says so.

    Raises:
        UserError: runs that do not belong to this table, or contradict each other (see `Scores`).
    """
    known = tuple(methods.PAPER_ROWS)
    methods.check(runs, method=known, mixture=(MIXTURE,))
    scores = Scores(COLUMNS, runs)
    results = methods.table(
        1,
        "The lite mixture: methods on real data",
        scores,
        notes=("NER is XTREME-UP's own; the other tasks come from other sources, in its layout.",),
    )
    return Report((results,), methods.warnings(scores, known, missing))
