"""Table 1: multilingual multitask learning, with the languages behind it (the paper's Tables 30-50)."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from flix_lightning.reports import paper, render
from flix_lightning.reports.render import Report, Section, Table
from flix_lightning.reports.tables import methods
from flix_lightning.reports.tables.printed import Footnotes, printed_cell
from flix_lightning.reports.tables.scores import DASH, ScoreColumn, Scores, mean
from flix_lightning.runs.run import Run

METHODS = tuple(methods.PAPER_ROWS)
JOINT, HOLDOUT = "joint", "semantic_parsing_holdout"

COLUMNS = (
    ScoreColumn("NER", "ner", "seen", JOINT, appendix=(39, 40, 41)),
    ScoreColumn("Semantic Parsing", "semantic_parsing", "seen", JOINT, appendix=(36, 37, 38)),
    ScoreColumn("QA InLang", "qa_in_lang", "seen", JOINT, appendix=(33, 34, 35)),
    ScoreColumn("QA CrossLang", "qa_cross_lang", "seen", JOINT, appendix=(30, 31, 32)),
    ScoreColumn(
        "Unseen Comb: QA CrossLang", "qa_cross_lang", "unseen_combination", JOINT, "Zero-shot", (42, 43, 44)
    ),
    ScoreColumn(
        "Unseen Comb: Semantic parsing",
        "semantic_parsing",
        "unseen_combination",
        HOLDOUT,
        "Zero-shot",
        (45, 46, 47),
    ),
    ScoreColumn(
        "Unseen Lang: QA CrossLang", "qa_cross_lang", "unseen_language", JOINT, "Zero-shot", (48, 49, 50)
    ),
)

_CONTROLS = {"none": "Frozen base", "task": "Task rows only", "language": "Language rows only"}
_FACTS = {
    "rank": "Rank",
    "active_parameters": "Active parameters",
    "total_parameters": "Total parameters",
    "examples_seen": "Examples seen",
    "share_without_features": "Examples without an active feature",
}


def table(runs: Sequence[Run], missing: Sequence[str] = ()) -> Report:
    """The paper's Table 1 from our runs, with the paper's rows below them.

    Args:
        runs: all of the table's runs.
        missing: names of the table's runs that are not there; the table is made without them and says so.

    Raises:
        UserError: runs that do not belong to this table, or contradict each other (see `Scores`).
    """
    _check(runs)
    scores = Scores(COLUMNS, runs)
    results = methods.table(
        1,
        "Table 1: multilingual multitask learning with FLix",
        scores,
        controls=[methods.means("FLix", scores, active, name) for active, name in _CONTROLS.items()],
        notes=(
            "Frozen base, task rows only, language rows only: evaluations of the FLix runs with nothing else"
            " on.",
        ),
    )
    return Report((results, _facts(runs)), methods.warnings(scores, METHODS, missing))


def by_language(runs: Sequence[Run], missing: Sequence[str] = ()) -> Report:
    """The languages behind each column of Table 1 (the paper's Tables 30-50), one table a column.

    Args: and Raises: as `table`.
    """
    _check(runs)
    test, validation = Scores(COLUMNS, runs), Scores(COLUMNS, runs, "validation")
    tables = tuple(_language_table(column, test, validation) for column in COLUMNS)
    return Report(tables, methods.warnings(test, METHODS, missing))


def _check(runs: Sequence[Run]) -> None:
    methods.check(runs, method=METHODS, mixture=(JOINT, HOLDOUT))


def _facts(runs: Sequence[Run]) -> Table:
    """Size and training of each method, one line a mixture."""
    facts = defaultdict(list)
    for row in (row for run in runs for row in run.rows):
        if row.split == "train":
            facts[row.method, row.mixture, row.metric].append(row.value)
    lines = [
        (method, mixture, *(_fact(metric, facts[method, mixture, metric]) for metric in _FACTS))
        for method in METHODS
        for mixture in (JOINT, HOLDOUT)
    ]
    heads = ("", "Trained on", *_FACTS.values())
    return Table("Size and training", tuple(map(render.Column, heads)), (Section("", tuple(lines)),))


def _fact(metric: str, values: Sequence[float]) -> str:
    if not values:
        return DASH
    return f"{fmean(values):.1%}" if metric == "share_without_features" else f"{fmean(values):,.0f}"


def _language_table(column: ScoreColumn, test: Scores, validation: Scores) -> Table:
    printed = {method: paper.table(number) for method, number in zip(METHODS, column.appendix, strict=True)}
    splits = {"validation": validation} if validation.languages(column) else {}
    splits["test"] = test
    values = {
        (method, split): _language_values(scores, column, method)
        for method in METHODS
        for split, scores in splits.items()
    }
    footnotes = Footnotes()

    def line(name: str) -> tuple[str, ...]:
        cells = [name]
        for method in METHODS:
            cells += [mean(values[method, split].get(name, ())) for split in splits]
            cells.append(printed_cell(printed[method], name, "test", footnotes))
        return tuple(cells)

    languages = dict.fromkeys([*printed["FLix"].rows, *test.languages(column)])
    del languages["average"]
    heads = [render.Column(head, method) for method in METHODS for head in (*splits, "paper's test")]
    return Table(
        f"{column.head} (the paper's Tables {min(column.appendix)}-{max(column.appendix)})",
        (render.Column("Language"), *heads),
        (Section("", tuple(map(line, languages))), Section("", (line("average"),))),
        ("Each average is over the languages that stand in its own column.", *footnotes.lines),
    )


def _language_values(scores: Scores, column: ScoreColumn, method: str) -> dict[str, list[float]]:
    """Language -> the value of each seed that has one; "average" -> the macro averages of the seeds."""
    values = defaultdict(list, average=list(scores.by_seed(column, method).values()))
    for seed in scores.seeds:
        for language, value in scores.by_language(column, method, seed).items():
            values[language].append(value)
    return values
