"""Tables made from the rows of many runs, beside the paper's own numbers.

Pure functions of rows: which runs belong to a table, and which of them are missing, is the caller's to say.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from flix_lightning import paper, render
from flix_lightning.errors import UserError
from flix_lightning.intervals import bootstrap, t_half_width
from flix_lightning.paper import PaperTable
from flix_lightning.render import Report, Section, Table
from flix_lightning.results import Row

METHODS = ("Compute-matched", "Param-matched", "FLix")
DASH = "—"


@dataclass(frozen=True)
class ScoreColumn:
    """A column of scores: the macro average over languages of one task in one kind of evaluation.

    Attributes:
        head: as in the paper.
        group: the heading above it, as in the paper, or none.
        mixture: what its runs were trained on.
        task: the evaluated task.
        seen: what its languages are to the training mixture.
        appendix: the paper's tables of its languages, one a method in the order of `METHODS`.
    """

    head: str
    group: str
    mixture: str
    task: str
    seen: str
    appendix: tuple[int, int, int]


TABLE1 = (
    ScoreColumn("NER", "", "joint", "ner", "seen", (39, 40, 41)),
    ScoreColumn("Semantic Parsing", "", "joint", "semantic_parsing", "seen", (36, 37, 38)),
    ScoreColumn("QA InLang", "", "joint", "qa_in_lang", "seen", (33, 34, 35)),
    ScoreColumn("QA CrossLang", "", "joint", "qa_cross_lang", "seen", (30, 31, 32)),
    ScoreColumn(
        "Unseen Comb: QA CrossLang", "Zero-shot", "joint", "qa_cross_lang", "unseen_combination", (42, 43, 44)
    ),
    ScoreColumn(
        "Unseen Comb: Semantic parsing",
        "Zero-shot",
        "semantic_parsing_holdout",
        "semantic_parsing",
        "unseen_combination",
        (45, 46, 47),
    ),
    ScoreColumn(
        "Unseen Lang: QA CrossLang", "Zero-shot", "joint", "qa_cross_lang", "unseen_language", (48, 49, 50)
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


class Scores:
    """One split's scores of the runs of one table, by column, method, active features and seed.

    A run whose languages are fewer than the other runs' has no macro average in that column: it would not
    be the same average.

    Raises:
        UserError: a method or mixture that is none of the table's, two runs of the same method, mixture and
            seed, or one dataset scored twice in a run.
    """

    def __init__(self, columns: Sequence[ScoreColumn], rows: Sequence[Row], split: str = "test"):
        _check_runs(columns, rows)
        self.columns = columns
        self._values: dict[tuple, dict[str, float]] = defaultdict(dict)
        # A run may keep every validation it made; that of the tested weights stands beside the test.
        tested = {
            (row.run, row.task, row.step) for row in rows if row.split == "test" and row.active == "all"
        }
        rows = [row for row in rows if row.split == split]
        if split == "validation":
            rows = [row for row in rows if (row.run, row.task, row.step) in tested]
        self.seeds = sorted({row.seed for row in rows})
        for row in rows:
            values = self._values[row.mixture, row.task, row.seen, row.method, row.seed, row.active]
            if row.language in values:
                dataset = f"{row.task}/{row.language}"
                raise UserError(f"run {row.run}: {dataset} is scored twice in {split}, active {row.active}")
            values[row.language] = row.value

    def by_language(
        self, column: ScoreColumn, method: str, seed: int, active: str = "all"
    ) -> dict[str, float]:
        """One run's scores of the column's languages; empty where there are none."""
        return self._values.get((column.mixture, column.task, column.seen, method, seed, active), {})

    def languages(self, column: ScoreColumn) -> list[str]:
        """Every language that some run was scored on in that column, sorted."""
        dataset = (column.mixture, column.task, column.seen)
        found = [values for key, values in self._values.items() if key[:3] == dataset]
        return sorted({language for values in found for language in values})

    def by_seed(self, column: ScoreColumn, method: str, active: str = "all") -> dict[int, float]:
        """The macro average over languages of each seed that has all of them."""
        expected = len(self.languages(column))
        runs = {seed: self.by_language(column, method, seed, active) for seed in self.seeds}
        return {seed: fmean(run.values()) for seed, run in runs.items() if run and len(run) == expected}

    def line(self, method: str, active: str = "all") -> list[dict[int, float]]:
        """Every column `by_seed`, and last their average for each seed that has all columns."""
        line = [self.by_seed(column, method, active) for column in self.columns]
        complete = [seed for seed in self.seeds if all(seed in column for column in line)]
        return [*line, {seed: fmean(column[seed] for column in line) for seed in complete}]


def table1(rows: Sequence[Row], missing: Sequence[str] = ()) -> Report:
    """The paper's Table 1 from our runs, with the paper's rows below them.

    Args:
        rows: the rows of all of the table's runs.
        missing: names of the table's runs that are not there; the table is made without them and says so.

    Raises:
        UserError: rows that do not belong to this table, or contradict each other (see `Scores`).
    """
    scores = Scores(TABLE1, rows)
    footnotes = _Footnotes()
    columns = (render.Column(""), *(render.Column(c.head, c.group) for c in TABLE1), render.Column("Avg."))
    counts = [str(len(scores.languages(column))) for column in TABLE1]
    methods = [_means(method, scores.line(method)) for method in METHODS]
    differences = [line for baseline in METHODS[:-1] for line in _difference(scores, baseline)]
    controls = [_means(name, scores.line("FLix", active)) for active, name in _CONTROLS.items()]
    theirs = paper.table(1)
    printed = [
        (method, *(_printed(theirs, method, column, footnotes) for column in theirs.columns))
        for method in METHODS
    ]
    sections = (
        Section("Methods", (*methods, ("Languages", *counts, DASH))),
        Section("FLix minus", tuple(differences)),
        Section("Controls", tuple(controls)),
        Section("The paper's own", tuple(printed)),
    )
    seeds = ", ".join(map(str, scores.seeds)) or "none"
    spread = "; mean ± half of the 95 % t-interval over seeds" if len(scores.seeds) > 1 else ""
    explained = (
        f"Test scores on 0-100, macro averages over languages; seeds: {seeds}{spread}.",
        "FLix minus a baseline: paired by seed; below it 95 % intervals, Student's t over seeds (two or more)"
        " and a bootstrap over languages (two or more; a column of one is kept as it is in the average's).",
        "Frozen base, task rows only, language rows only: evaluations of the FLix runs with nothing else on.",
        "The paper's own: PaLM-2 small on XTREME-UP; another base or other data give another level.",
    )
    results = Table(
        "Table 1: multilingual multitask learning with FLix",
        columns,
        sections,
        (*explained, *footnotes.lines),
    )
    return Report((results, _facts(rows)), _warnings(scores, missing))


def table1_languages(rows: Sequence[Row], missing: Sequence[str] = ()) -> Report:
    """The languages behind each column of Table 1 (the paper's Tables 30-50), one table a column.

    Args: and Raises: as `table1`.
    """
    test, validation = Scores(TABLE1, rows), Scores(TABLE1, rows, "validation")
    tables = tuple(_language_table(column, test, validation) for column in TABLE1)
    return Report(tables, _warnings(test, missing))


def _check_runs(columns: Sequence[ScoreColumn], rows: Sequence[Row]) -> None:
    mixtures = {column.mixture for column in columns}
    runs = {}
    for row in rows:
        if row.method not in METHODS:
            raise UserError(
                f"run {row.run}: method {row.method!r} is none of this table's ({', '.join(METHODS)})"
            )
        if row.mixture not in mixtures:
            known = ", ".join(sorted(mixtures))
            raise UserError(f"run {row.run}: mixture {row.mixture!r} is none of this table's ({known})")
        first = runs.setdefault((row.method, row.mixture, row.seed), row.run)
        if first != row.run:
            raise UserError(
                f"runs {first} and {row.run} are both {row.method}, {row.mixture}, seed {row.seed}"
            )


def _warnings(scores: Scores, missing: Sequence[str]) -> tuple[str, ...]:
    """What keeps a cell from being what its column says."""
    warnings = [f"Missing runs, so this table is not complete: {', '.join(missing)}"] if missing else []
    for method in METHODS:
        for seed in scores.seeds:
            absent = []
            for column in scores.columns:
                have, expected = scores.by_language(column, method, seed), scores.languages(column)
                lacking = [language for language in expected if language not in have]
                if not have:
                    absent.append(column.head)
                elif lacking:
                    warnings.append(
                        f"{method}, seed {seed}, is left out of {column.head}: it lacks {', '.join(lacking)}"
                    )
            if absent:
                warnings.append(f"{method}, seed {seed}, has no scores for {', '.join(absent)}")
    return tuple(warnings)


def _mean(values: Collection[float]) -> str:
    if not values:
        return DASH
    spread = f" ±{t_half_width(values):.1f}" if len(values) > 1 else ""
    return f"{fmean(values):.1f}{spread}"


def _means(name: str, line: Iterable[dict[int, float]]) -> tuple[str, ...]:
    return (name, *(_mean(seeds.values()) for seeds in line))


def _difference(scores: Scores, baseline: str) -> list[tuple[str, ...]]:
    """FLix minus a baseline: the difference, and one line for each kind of interval."""
    means, over_seeds = [], []
    for ours, theirs in zip(scores.line("FLix"), scores.line(baseline), strict=True):
        paired = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        means.append(f"{fmean(paired):+z.1f}" if paired else DASH)
        half = t_half_width(paired) if len(paired) > 1 else None
        over_seeds.append(DASH if half is None else _interval(fmean(paired) - half, fmean(paired) + half))
    by_language = [_language_differences(scores, column, baseline) for column in scores.columns]
    over_languages = [_interval(*bootstrap([each])) if len(each) > 1 else DASH for each in by_language]
    over_languages.append(_interval(*bootstrap(by_language)) if all(by_language) else DASH)
    return [
        (baseline, *means),
        ("  over seeds", *over_seeds),
        ("  over languages", *over_languages),
    ]


def _language_differences(scores: Scores, column: ScoreColumn, baseline: str) -> list[float]:
    """FLix minus the baseline for each language, averaged over the seeds that both have in full."""
    both = scores.by_seed(column, "FLix").keys() & scores.by_seed(column, baseline).keys()
    pairs = [
        (scores.by_language(column, "FLix", seed), scores.by_language(column, baseline, seed))
        for seed in sorted(both)
    ]
    languages = scores.languages(column) if pairs else []
    return [fmean(ours[language] - theirs[language] for ours, theirs in pairs) for language in languages]


def _interval(low: float, high: float) -> str:
    return f"{low:+z.1f} to {high:+z.1f}"


class _Footnotes:
    """Marks for notes, in the order in which they are first needed; the same note has the same mark."""

    _MARKS = "†‡§¶"

    def __init__(self):
        self._notes: list[str] = []

    def mark(self, note: str | None) -> str:
        if note is None:
            return ""
        if note not in self._notes:
            self._notes.append(note)
        return self._MARKS[self._notes.index(note)]

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(f"{mark} Doubtful: {note}" for mark, note in zip(self._MARKS, self._notes, strict=False))


def _printed(table: PaperTable, row: str, column: str, footnotes: _Footnotes) -> str:
    """A cell of the paper with the mark of its doubt, or a dash where the paper has none."""
    value = table.rows.get(row, {}).get(column)
    return DASH if value is None else f"{value:.1f}{footnotes.mark(table.doubt(row, column))}"


def _facts(rows: Sequence[Row]) -> Table:
    """Size and training of each method, one line a mixture."""
    facts = defaultdict(list)
    for row in rows:
        if row.split == "train":
            facts[row.method, row.mixture, row.metric].append(row.value)
    mixtures = dict.fromkeys(column.mixture for column in TABLE1)
    lines = [
        (method, mixture, *(_fact(metric, facts[method, mixture, metric]) for metric in _FACTS))
        for method in METHODS
        for mixture in mixtures
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
    footnotes = _Footnotes()

    def line(name: str) -> tuple[str, ...]:
        cells = [name]
        for method in METHODS:
            cells += [_mean(values[method, split].get(name, ())) for split in splits]
            cells.append(_printed(printed[method], name, "test", footnotes))
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
