import io
import re
from dataclasses import replace
from math import sqrt
from statistics import NormalDist, fmean, stdev

import numpy as np
import pytest
import torch
from examples import alike, made_up
from matplotlib.image import imread
from rich.console import Console
from scipy import stats

from flix_lightning.common.errors import UserError
from flix_lightning.reports import render
from flix_lightning.reports.intervals import bootstrap, t_half_width
from flix_lightning.reports.tables import make
from flix_lightning.runs.rows import Row

HEADS = [
    *("NER", "Semantic Parsing", "QA InLang", "QA CrossLang", "Unseen Comb: QA CrossLang"),
    *("Unseen Comb: Semantic parsing", "Unseen Lang: QA CrossLang", "Avg."),
]
JOINT, HOLDOUT = "joint", "semantic_parsing_holdout"
# Table 1's columns, each with its languages: (mixture, task, seen) as the paper's Appendix B has them.
DATASETS = [
    (JOINT, "ner", "seen", ["am", "bm", "sw"]),
    (JOINT, "semantic_parsing", "seen", ["am", "ja"]),
    (JOINT, "qa_in_lang", "seen", ["ar", "en"]),
    (JOINT, "qa_cross_lang", "seen", ["ar", "te", "fi"]),
    (JOINT, "qa_cross_lang", "unseen_combination", ["hi"]),
    (HOLDOUT, "semantic_parsing", "unseen_combination", ["am", "sw"]),
    (JOINT, "qa_cross_lang", "unseen_language", ["as", "ur"]),
]
FACTS = {"rank": 6, "active_parameters": 1200, "total_parameters": 34567, "examples_seen": 20480}
METHODS = ("Compute-matched", "Param-matched", "FLix")


def score(method, seed, column, language):
    """A made-up test score: another number for every run, column and language."""
    base = {"Compute-matched": 40, "Param-matched": 45, "FLix": 50}[method]
    return base + 3 * column + len(method) * language**2 * 0.3 + (seed * (2 + column) * len(method)) % 7


def runs(seeds=(0,), without=()):
    """All rows of Table 1's runs but those in `without` (method, mixture, seed)."""
    keys = [(method, mixture, seed) for method in METHODS for seed in seeds for mixture in (JOINT, HOLDOUT)]
    return [row for key in keys if key not in without for row in rows_of(*key)]


def rows_of(method, mixture, seed):
    """The rows of one run. Translation is trained and evaluated, but no table reports it."""
    common = {
        "run": f"{method}-{mixture}-{seed}",
        "method": method,
        "mixture": mixture,
        "seed": seed,
        "n": 100,
    }

    def row(split, value, metric="exact_match", task=None, language=None, seen=None, active="all", step=600):
        place = {"task": task, "language": language, "seen": seen, "active": active, "step": step}
        return Row(**common, split=split, metric=metric, value=value, **place)

    facts = FACTS | {"share_without_features": 0.49 if method == "FLix" else 0.0}
    yield from (row("train", value, metric) for metric, value in facts.items())
    for column, (trained, task, seen, languages) in enumerate(DATASETS):
        for index, language in enumerate(languages if trained == mixture else ()):
            value, place = score(method, seed, column, index), (task, language, seen)
            yield row("test", value, "exact_match", *place)
            yield row("validation", value + 1, "exact_match", *place)
            yield row("validation", 1.0, "exact_match", *place, step=200)
            for part, active in enumerate(("none", "task", "language") if method == "FLix" else (), start=1):
                yield row("test", value - 10 * part, "exact_match", *place, active)
    yield row("test", 9.0, "chrf", "translation", "sw", "seen")


def finished(rows, counts=alike):
    """The rows as runs."""
    return [
        made_up([row for row in rows if row.run == run], counts)
        for run in dict.fromkeys(row.run for row in rows)
    ]


def table_1(rows, missing=(), **options):
    return make("table1", finished(rows, **options), missing, [])["table1"]


def languages_behind(rows):
    return make("table1", finished(rows), [], [])["table1-languages"]


def cells(table):
    """The table as section -> row name -> {head: text}; a row below another is named after both."""
    heads = [column.head for column in table.columns][1:]
    found = {}
    for section in table.sections:
        parent = ""
        for name, *texts in section.lines:
            parent = name if not name.startswith(" ") else parent
            key = name if name == parent else f"{parent}{name}"
            found.setdefault(section.title, {})[key] = dict(zip(heads, texts, strict=True))
    return found


def expected_columns(method, seed, minus=0):
    columns = [
        fmean(score(method, seed, column, index) for index in range(len(languages))) - minus
        for column, (*_, languages) in enumerate(DATASETS)
    ]
    return [*columns, fmean(columns)]


def test_heads_and_rows_stand_in_the_papers_order():
    table = table_1(runs()).tables[0]
    assert [column.head for column in table.columns] == ["", *HEADS]
    assert [column.head for column in table.columns if column.group == "Zero-shot"] == HEADS[4:7]
    assert list(cells(table)["Methods"])[:3] == ["Compute-matched", "Param-matched", "FLix"]


@pytest.mark.parametrize("method", METHODS)
def test_one_seed_shows_macro_averages_over_languages(method):
    row = cells(table_1(runs()).tables[0])["Methods"][method]
    assert list(row.values()) == [f"{value:.1f}" for value in expected_columns(method, 0)]


def test_several_seeds_show_mean_and_t_interval():
    row = cells(table_1(runs(seeds=(0, 1, 2))).tables[0])["Methods"]["FLix"]
    seeds = [expected_columns("FLix", seed) for seed in (0, 1, 2)]
    for values, text in zip(zip(*seeds, strict=True), row.values(), strict=True):
        half = 4.302653 * stdev(values) / sqrt(3)
        assert text == f"{fmean(values):.1f} ±{half:.1f}"


@pytest.mark.parametrize("baseline", ["Compute-matched", "Param-matched"])
def test_differences_are_paired_by_seed(baseline):
    found = cells(table_1(runs(seeds=(0, 1, 2))).tables[0])["FLix minus"]
    pairs = [zip(expected_columns("FLix", s), expected_columns(baseline, s), strict=True) for s in (0, 1, 2)]
    seeds = [[ours - theirs for ours, theirs in pair] for pair in pairs]
    for head, values in zip(HEADS, zip(*seeds, strict=True), strict=True):
        half = 4.302653 * stdev(values) / sqrt(3)
        low, high = fmean(values) - half, fmean(values) + half
        assert found[baseline][head] == f"{fmean(values):+z.1f}"
        assert found[f"{baseline}  over seeds"][head] == f"{low:+z.1f} to {high:+z.1f}"


def test_differences_are_corrected_for_their_number():
    """Of the sixteen of Table 1, those whose paired t-test has a p-value below 0.05 / 16."""
    seeds, found, heads = range(5), [], [*HEADS[:-1], "average"]
    for baseline in ("Compute-matched", "Param-matched"):
        by_seed = [expected_columns("FLix", seed) for seed in seeds]
        other = [expected_columns(baseline, seed) for seed in seeds]
        p_values = stats.ttest_rel(by_seed, other).pvalue
        found += [f"{baseline} in {head}" for head, p in zip(heads, p_values, strict=True) if p < 0.05 / 16]
    methods, controls = (note for note in table_1(runs(seeds)).tables[0].footnotes if "Bonferroni" in note)
    assert methods.endswith(f"(16, Bonferroni), these differences exclude 0: {', '.join(found)}.")
    assert 0 < len(found) < 16
    alone = ", ".join(f"Task rows only in {head}" for head in heads)  # FLix is 20 above them on every seed
    assert controls.endswith(f"(8, Bonferroni), these differences exclude 0: {alone}.")


def test_the_interval_over_languages_of_two_languages_spans_both():
    found = cells(table_1(runs()).tables[0])["FLix minus"]
    first, second = (score("FLix", 0, 1, index) - score("Param-matched", 0, 1, index) for index in (0, 1))
    low, high = sorted((first, second))
    assert found["Param-matched  over languages"]["Semantic Parsing"] == f"{low:+z.1f} to {high:+z.1f}"
    assert found["Param-matched  over seeds"]["Semantic Parsing"] == "—"
    one = f"{score('FLix', 0, 4, 0) - score('Param-matched', 0, 4, 0):+z.1f}"
    assert found["Param-matched  over languages"]["Unseen Comb: QA CrossLang"] == f"{one} to {one}"
    assert re.fullmatch(r"[+-][\d.]+ to [+-][\d.]+", found["Param-matched  over languages"]["Avg."])


@pytest.mark.parametrize(
    ("name", "minus"), [("Frozen base", 10), ("Task rows only", 20), ("Language rows only", 30)]
)
def test_controls_are_evaluations_of_the_flix_runs(name, minus):
    row = cells(table_1(runs()).tables[0])["Controls"][name]
    assert list(row.values()) == [f"{value:.1f}" for value in expected_columns("FLix", 0, minus)]


def test_flix_is_compared_with_its_task_rows_alone():
    found = cells(table_1(runs(seeds=(0, 1, 2))).tables[0])["FLix minus"]
    assert set(found["Task rows only"].values()) == {"+20.0"}
    assert set(found["Task rows only  over seeds"].values()) == {"+20.0 to +20.0"}


def test_the_papers_rows_stand_beside_ours_with_doubtful_cells_marked():
    table = table_1(runs()).tables[0]
    printed = cells(table)["The paper's own"]
    assert list(printed["FLix"].values()) == "84.0 45.6 89.4 85.2 82.8 42.6§ 77.2 72.4§".split()
    assert printed["Param-matched"]["Unseen Comb: QA CrossLang"] == "80.0†"
    assert printed["Compute-matched"]["Unseen Lang: QA CrossLang"] == "74.6‡"
    notes = {note[0]: note for note in table.footnotes if "Doubtful" in note}
    assert set(notes) == {"†", "‡", "§"}
    assert "Table 38" in notes["§"]


def test_sizes_and_training_stand_for_each_method_and_mixture():
    table = table_1(runs(seeds=(0, 1))).tables[1]
    rows = [row for section in table.sections for row in section.lines]
    assert len(rows) == 6
    assert ("FLix", HOLDOUT, "6", "1,200", "34,567", "20,480", "49.0%") in rows
    assert ("Compute-matched", JOINT, "6", "1,200", "34,567", "20,480", "0.0%") in rows


def test_a_missing_run_is_named_and_leaves_dashes_and_no_average():
    rows = runs(without={("Param-matched", JOINT, 0)})
    report = table_1(rows, missing=["Param-matched, joint, seed 0 (0123456789)"])
    found = cells(report.tables[0])
    row = found["Methods"]["Param-matched"]
    holdout = f"{expected_columns('Param-matched', 0)[5]:.1f}"
    assert list(row.values()) == ["—"] * 5 + [holdout, "—", "—"]
    assert found["Methods"]["FLix"]["Avg."] != "—"
    assert found["FLix minus"]["Param-matched"]["Avg."] == "—"
    assert found["FLix minus"]["Param-matched  over languages"]["Avg."] == "—"
    assert found["FLix minus"]["Compute-matched"]["Avg."] != "—"
    assert "Param-matched, joint, seed 0 (0123456789)" in report.warnings[0]
    assert "Param-matched, seed 0, has no scores for NER" in report.warnings[1]


def test_without_any_run_the_table_is_the_papers_alone():
    report = table_1([], missing=["all of them"])
    found = cells(report.tables[0])
    assert set(found["Methods"]["FLix"].values()) == {"—"}
    assert found["The paper's own"]["FLix"]["NER"] == "84.0"
    assert "all of them" in report.warnings[0]


@pytest.mark.filterwarnings("error")
def test_without_any_run_the_languages_are_drawn_without_bars(tmp_path):
    render.save(languages_behind([]), tmp_path, "table1-languages")
    assert (tmp_path / "table1-languages.png").exists()


def test_a_run_that_lacks_a_language_is_left_out_and_named():
    rows = [
        row for row in runs() if not (row.method == "FLix" and row.task == "ner" and row.language == "sw")
    ]
    report = table_1(rows)
    found = cells(report.tables[0])["Methods"]["FLix"]
    assert found["NER"] == "—"
    assert found["Avg."] == "—"
    assert report.warnings == ("FLix, seed 0, is left out of NER: it lacks sw",)


def test_a_seed_without_its_pair_does_not_enter_a_difference():
    rows = runs(seeds=(0, 1), without={("Param-matched", JOINT, 1), ("Param-matched", HOLDOUT, 1)})
    found = cells(table_1(rows).tables[0])["FLix minus"]["Param-matched"]
    differences = [expected_columns("FLix", 0)[i] - expected_columns("Param-matched", 0)[i] for i in range(8)]
    assert list(found.values()) == [f"{value:+z.1f}" for value in differences]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"run": "another"},
            "FLix-joint-0 and another: ner/am is scored twice in test, active all, for FLix, seed 0",
        ),
        ({"run": "another", "method": "FLiX"}, "another: method 'FLiX' is none of this table's"),
        ({"run": "another", "mixture": "all"}, "another: mixture 'all' is none of this table's"),
        ({}, "FLix-joint-0: ner/am is scored twice"),
    ],
)
def test_rows_that_look_alike_are_refused(change, message):
    rows = runs()
    first = next(row for row in rows if (row.method, row.split, row.active) == ("FLix", "test", "all"))
    with pytest.raises(UserError, match=message):
        table_1([*rows, replace(first, **change)])


def test_languages_stand_beside_the_papers_with_what_either_lacks():
    ner, *_, unseen_parsing, _ = languages_behind(runs()).tables
    rows = {row[0]: row[1:] for section in ner.sections for row in section.lines}
    flix_am = score("FLix", 0, 0, 0)
    # The three columns of each method: validation of the tested weights, test, the paper's test.
    assert rows["am"][6:] == (f"{flix_am + 1:.1f}", f"{flix_am:.1f}", "79.4")
    assert rows["bbj"] == ("—", "—", "61.2", "—", "—", "66.1", "—", "—", "70.5")
    assert rows["average"][7:] == (f"{expected_columns('FLix', 0)[0]:.1f}", "84.0")
    rows = {row[0]: row[1:] for section in unseen_parsing.sections for row in section.lines}
    assert rows["sw"][8] == "42.6†"
    assert rows["average"][8] == "42.6†"
    assert rows["sw"][2] == "22.0"


def test_each_task_stands_beside_the_validation_of_its_own_checkpoint():
    # As the paper selects: one checkpoint a task, so that the steps of one run's test rows differ by task.
    rows = [
        replace(row, step=200) if row.split == "test" and row.task == "qa_in_lang" else row for row in runs()
    ]
    ner, _, qa_in_lang, *_ = languages_behind(rows).tables
    validations = {
        table.title: {row[7] for section in table.sections for row in section.lines if row[0] != "average"}
        for table in (ner, qa_in_lang)
    }
    assert validations[qa_in_lang.title] - {"—"} == {"1.0"}
    assert "1.0" not in validations[ner.title]


def test_a_language_that_the_paper_lacks_is_shown_too():
    rows = [row for row in runs() if row.split == "test"]
    am = next(row for row in rows if row.task == "ner" and row.language == "am" and row.method == "FLix")
    fields = {name: getattr(am, name) for name in Row.__dataclass_fields__}
    table = languages_behind([*rows, Row(**fields | {"language": "ak"})]).tables[0]
    found = {row[0]: row[1:] for section in table.sections for row in section.lines}
    assert [column.head for column in table.columns][1:3] == ["test", "paper's test"]
    assert found["ak"] == ("—", "—", "—", "—", f"{am.value:.1f}", "—")


@pytest.mark.parametrize("count", [2, 3, 5, 20, 31])
def test_the_t_interval_holds_95_percent_of_students_t(count):
    values = torch.arange(count, dtype=torch.float64).tolist()
    quantile = t_half_width(values) / stdev(values) * sqrt(count)
    grid = torch.linspace(-quantile, quantile, 200_001, dtype=torch.float64)
    density = (
        torch.distributions.StudentT(torch.tensor(count - 1.0, dtype=torch.float64)).log_prob(grid).exp()
    )
    assert torch.trapezoid(density, grid).item() == pytest.approx(0.95, abs=2e-4)


def test_the_bootstrap_agrees_with_the_normal_interval_of_many_languages():
    generator = np.random.default_rng(7)
    groups = [generator.normal(3, 1, (200, 1)), generator.normal(-1, 2, (300, 1))]
    centre = fmean(group.mean() for group in groups)
    error = sqrt(sum(group.var() / len(group) for group in groups)) / 2
    half = NormalDist().inv_cdf(0.975) * error
    assert bootstrap(groups) == pytest.approx((centre - half, centre + half), abs=0.1 * half)


def test_the_bootstrap_of_a_language_varies_its_examples_in_pairs():
    # 100 examples, 3 seeds: the baseline misses 20 of those that FLix has right, and both miss 30.
    right = {"FLix": np.arange(100) < 70, "Compute-matched": np.arange(100) < 50}

    def counts(row):
        return np.stack([right.get(row.method, right["FLix"]), np.ones(100)], axis=1).astype(float)

    found = cells(table_1(runs(seeds=(0, 1, 2)), counts=counts).tables[0])["FLix minus"]
    low, high = map(
        float, found["Compute-matched  over languages"]["Unseen Comb: QA CrossLang"].split(" to ")
    )
    half = 100 * NormalDist().inv_cdf(0.975) * sqrt(0.2 * 0.8 / 100)
    assert (low, high) == pytest.approx((20 - half, 20 + half), abs=1)
    assert found["Param-matched  over languages"]["Unseen Comb: QA CrossLang"] == "+0.0 to +0.0"


@pytest.fixture
def report():
    return table_1(runs(seeds=(0, 1)), missing=["FLix, joint, seed 2"])


def texts(report):
    return [text for table in report.tables for s in table.sections for row in s.lines for text in row]


@pytest.mark.parametrize("width", [80, 120, None])
def test_the_terminal_shows_every_number_whole(report, width):
    console = Console(file=io.StringIO(), width=width, force_terminal=width is not None, color_system=None)
    report.terminal(console)
    printed = console.file.getvalue()
    words = set(printed.split())
    for text in texts(report):
        for word in text.split():
            if any(character.isdigit() for character in word):
                assert word in words
    assert "FLix, joint, seed 2" in printed
    assert "Table 38" in " ".join(printed.split())
    if width:
        assert max(map(len, printed.splitlines())) <= width


def test_a_very_narrow_terminal_cuts_nothing_off(report):
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system=None)
    report.terminal(console)
    assert "…" not in console.file.getvalue()


def test_markdown_has_a_cell_for_every_column(report):
    text = report.markdown()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == sum(2 + sum(len(s.lines) + bool(s.title) for s in t.sections) for t in report.tables)
    assert {line.count("|") for line in lines[:20]} == {10}
    for row_text in texts(report):
        assert row_text in text
    assert "**Missing runs, so this table is not complete: FLix, joint, seed 2**" in text


def test_save_writes_markdown_and_picture(report, tmp_path):
    render.save(report, tmp_path / "tables", "table1")
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == ["table1.md", "table1.png"]
    assert (tmp_path / "tables" / "table1.md").read_text(encoding="utf-8") == report.markdown()
    picture = imread(tmp_path / "tables" / "table1.png")[..., :3].min(axis=2)
    inked_rows, inked_columns = (picture < 0.5).any(axis=1), (picture < 0.5).any(axis=0)
    # Text or rules on a fair share of the lines, across the width, and none of it cut off by the bottom.
    assert 0.3 < inked_rows.mean() < 0.95
    assert inked_columns.mean() > 0.9
    assert not inked_rows[-5:].any()


def test_a_picture_that_cannot_be_written_is_one_line(report, tmp_path):
    (tmp_path / "tables").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot make the folder"):
        render.save(report, tmp_path / "tables", "table1")
