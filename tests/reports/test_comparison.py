"""A comparison of any runs: what differs, scores, differences, and the command on folders and on a sweep."""

import csv
import io
import shutil
from dataclasses import replace
from statistics import fmean

import pytest
from examples import run
from omegaconf import OmegaConf
from rich.console import Console
from tiny_runs import do, rows

import commands
from flix_lightning.common.errors import UserError
from flix_lightning.reports.dashboard.page import page
from flix_lightning.reports.tables.comparison import Comparison, scores_csv

TESTED = [("ner", "sw"), ("ner", "yo"), ("summaries", "quz")]


def made(method="FLix", mixture="mine", seed=0, tested=TESTED, value=50.0, **sections):
    """A run with settings by section, all scores `value` apart from the language's place."""
    settings = {"flix": {"name": method, "dropout": 0.0}, "mixture": {"name": mixture}, "seed": seed}
    settings |= {"optimizer": {"learning_rate": 1e-3}, "trainer": {"max_steps": 100, "devices": 1}}
    for section, changed in sections.items():
        settings[section] = {**settings.get(section, {}), **changed}
    scores = {("test", task, code, 100): value + place for place, (task, code) in enumerate(tested)}
    made = run(settings, scores)
    made.path = made.path.with_name(f"{method}-{mixture}-{seed}-{abs(hash(str(settings)))}")
    return made


def lines(report, place=0):
    """Section -> lines without their first cell, by that cell."""
    return {
        section.title: {line[0]: list(line[1:]) for line in section.lines}
        for section in report.tables[place].sections
    }


def test_methods_are_lines_and_seeds_are_not():
    runs = [made("FLix", seed=seed, value=60 + seed) for seed in (0, 1)]
    runs += [made("LoRA", seed=seed, value=50, optimizer={"learning_rate": 2e-3}) for seed in (0, 1)]
    report = Comparison.of(runs).report("Mine")
    assert [column.head for column in report.tables[0].columns] == ["Method", "NER", "summaries", "Avg."]
    found = lines(report)
    assert [cell.split()[0] for cell in found["Methods"]["FLix"]] == ["61.0", "62.5", "61.8"]
    assert found["Methods"]["LoRA"] == ["50.5 ±0.0", "52.0 ±0.0", "51.2 ±0.0"]
    assert found[""]["Languages"][:2] == ["2", "1"]
    assert found["FLix minus"]["LoRA"] == ["+10.5"] * 3  # (10 + 11) / 2, paired by seed
    half = 12.7062 * 0.5
    assert found["FLix minus"]["  over seeds"] == [f"{10.5 - half:+.1f} to {10.5 + half:+.1f}"] * 3
    assert not report.warnings


@pytest.mark.parametrize("best", ["FLix", "LoRA"])
def test_the_best_value_is_marked_whoever_has_it(best):
    report = Comparison.of([made(name, value=60.0 + (name == best)) for name in ("FLix", "LoRA")]).report("")
    line = next(line for line in report.markdown().splitlines() if line.startswith(f"| {best} |"))
    assert line.count("**") == 6
    by_language = Comparison.of([made(name, value=60.0 + (name == best)) for name in ("FLix", "LoRA")])
    assert by_language.languages_report().markdown().count("**61.0**") == 1


def test_every_setting_that_decides_and_differs_is_a_column():
    runs = [
        made(flix={"dropout": dropout}, trainer={"max_steps": steps, "devices": steps}, seed=seed)
        for dropout in (0.0, 0.3)
        for steps in (100, 200)
        for seed in (0, 1)
    ]
    found = Comparison.of(runs)
    assert found.settings == {
        "dropout": ["0", "0", "0.3", "0.3"],
        "max_steps": ["100", "200", "100", "200"],
    }
    assert list(found.scores.runs)[-1] == "dropout 0.3, max_steps 200"
    assert set(found.minus.values()) == {"dropout 0, max_steps 100"}


def test_what_a_method_or_mixture_means_is_no_column_of_its_own():
    runs = [made("FLix", flix={"dropout": 0.7}), made("LoRA", optimizer={"learning_rate": 2e-3})]
    assert list(Comparison.of(runs).settings) == ["Method"]
    steps = [made("FLix"), made("LoRA", trainer={"max_steps": 200})]
    assert Comparison.of(steps).settings == {"Method": ["FLix", "LoRA"], "max_steps": ["100", "200"]}
    assert Comparison.of([made("LoRA"), made("LoRA", seed=1)]).settings == {"Method": ["LoRA"]}


def test_each_line_is_compared_with_flix_of_the_same_settings():
    runs = [made(method, mixture) for mixture in ("small", "large") for method in ("LoRA", "FLix")]
    found = Comparison.of(runs)
    assert found.minus == {
        "LoRA, small": "FLix, small",
        "LoRA, large": "FLix, large",
        "FLix, large": "FLix, small",
    }
    assert {"FLix, small minus", "FLix, large minus"} < set(lines(found.report("")))
    apart = [made("FLix", "one", tested=TESTED[:2]), made("FLix", "other", tested=TESTED[2:])]
    assert Comparison.of(apart).minus == {}


@pytest.mark.parametrize(("lora", "matches"), [(6, True), (8, False), (None, True)])
def test_a_lora_that_does_not_match_flix_is_named(lora, matches):
    """As where two commands gave them different ranks."""
    runs = [made("FLix"), made("LoRA", flix={"name": "LoRA", "lora_rank": lora and "max_active"})]
    for one, rank in zip(runs, (6, lora or 9), strict=True):
        one.rows.append(replace(one.rows[0], metric="rank", value=rank))
    assert [note.partition(";")[0] for note in Comparison.of(runs).notes] == (
        [] if matches else [f"LoRA does not match FLix: active rank {lora} and 6"]
    )


def test_two_loras_need_not_match():
    loras = {"LoRA": ("max_active", 6), "Large LoRA": ("total", 90)}
    runs = [made(name, flix={"name": name, "lora_rank": rank}) for name, (rank, _) in loras.items()]
    for one, (_, rank) in zip(runs, loras.values(), strict=True):
        one.rows += [replace(one.rows[0], metric=fact, value=rank) for fact in ("rank", "total_parameters")]
    found = Comparison.of(runs)
    assert found.minus == {"Large LoRA": "LoRA"}
    assert not found.notes


def test_macro_averages_are_over_the_languages_that_all_lines_share():
    runs = [made("FLix", tested=TESTED[:2], value=60), made("LoRA", tested=TESTED[1:2], value=50)]
    found = Comparison.of(runs)
    table = lines(found.report(""))
    assert table["Methods"]["FLix"][0] == "61.0"  # Yoruba alone
    assert table["FLix minus"]["LoRA"][0] == "+11.0"
    assert found.notes == ["NER: on the 1 of 2 languages that all lines share."]
    (by_language,) = found.languages_report().tables
    cells = {line[0]: line[1:] for section in by_language.sections for line in section.lines}
    assert cells["sw"] == ("60.0", "—")
    assert cells["yo"] == ("61.0", "50.0")


def test_lines_that_were_tested_on_other_examples_have_no_interval_over_languages():
    runs = [made("FLix", value=60), made("LoRA", value=50)]
    for found in ({"n": 1}, {"targets": ("a",) * 10}):
        small = made("LoRA", value=50)
        if "targets" in found:
            small.targets = lambda row, found=found: found["targets"]
        else:
            small.rows = [replace(row, **found) for row in small.rows]
        report = Comparison.of([runs[0], small]).report("")
        differences = lines(report)["FLix minus"]
        assert differences["LoRA"] == ["+10.0"] * 3
        assert differences["  over languages"] == ["—"] * 3
        (note,) = (note for note in report.tables[0].footnotes if "other examples" in note)
        assert note.startswith("LoRA and FLix were tested on other examples in NER, summaries: ")
    whole = Comparison.of(runs).report("")
    assert lines(whole)["FLix minus"]["  over languages"] == ["+10.0 to +10.0"] * 3
    assert not [note for note in whole.tables[0].footnotes if "other examples" in note]


def test_zero_shot_has_columns_of_its_own():
    unseen = ("ner", "zu", "unseen_family")
    tested = {("test", "ner", "sw", 100): 70.0, ("test", *unseen[:2], 100, unseen[2]): 30.0}
    settings = {"flix": {"name": "FLix"}, "mixture": {"name": "mine"}, "seed": 0}
    (table,) = Comparison.of([run(settings, tested)]).report("").tables
    assert [(one.group, one.head) for one in table.columns[1:3]] == [
        ("", "NER"),
        ("Zero-shot", "Unseen family: NER"),
    ]
    assert table.sections[0].lines[0][1:] == ("70.0", "30.0", "50.0")


def test_runs_that_nothing_tells_apart_are_named():
    first, second = made(), made()
    second.path = second.path.with_name("another")
    with pytest.raises(UserError, match=f"{first.name} and another: ner/sw is scored twice"):
        Comparison.of([first, second])


def test_csv_holds_every_score_whole():
    runs = [made(value=100 / 3), made("LoRA", trainer={"max_steps": 7})]
    found = list(csv.DictReader(io.StringIO(scores_csv(runs))))
    assert len(found) == 2 * len(TESTED)
    assert float(found[0]["value"]) == 100 / 3
    assert {(one["Method"], one["max_steps"]) for one in found} == {("FLix", "100"), ("LoRA", "7")}
    assert found[0]["run"] == runs[0].name


# -- the command


@pytest.fixture(scope="module")
def output(tiny, tmp_path_factory):
    """Two finished runs."""
    folder = tmp_path_factory.mktemp("compared") / "outputs"
    for method in ("flix", "compute_matched"):
        do([*tiny, f"flix={method}", "flix.dropout=0"], folder)
    return folder


@pytest.mark.parametrize("by", ["folders", "overrides"])
def test_the_command_compares_folders_and_any_sweep(by, output, tiny, tmp_path):
    folders = sorted((output / "runs").iterdir())
    arguments = {
        "folders": [output / "runs"],
        "overrides": [*tiny, "flix=flix,compute_matched", "flix.dropout=0", f"output={output}"],
    }
    said = commands.run(tmp_path, "report.py", *arguments[by])
    assert not said.err
    files = sorted(path.name for path in (output / "tables").iterdir())
    kinds = ("comparison-languages.md", "comparison-languages.png", "comparison.csv", "comparison.md")
    assert files == sorted([*kinds, "comparison.png"])
    flix = next(folder for folder in folders if folder.name.startswith("flix-"))
    ner = [row["value"] for row in rows(flix, split="test", active="all", task="ner", seen="seen")]
    line = next(line for line in said.out.splitlines() if line.split()[:1] == ["FLix"])
    assert f"{fmean(ner):.1f}" in line
    assert "Yoruba" not in said.out
    assert " yo " in said.out
    written = list(csv.DictReader((output / "tables/comparison.csv").open()))
    assert {one["run"] for one in written} == {folder.name for folder in folders}
    # On a narrow terminal no number is cut.
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    from flix_lightning.runs.run import Run

    Comparison.of([Run.open(folder) for folder in folders]).report("").terminal(console)
    assert f"{fmean(ner):.1f}" in console.file.getvalue()


def test_the_dashboard_compares_runs_of_no_table(output):
    html = page(output, [])
    assert "Runs trained on tiny: differences in points" in html
    assert "FLix against Compute-matched" in html
    assert "Comparison of" not in html
    assert 'class="best"' in html
    assert 'class="sample"' in html


def test_the_dashboard_shows_a_single_run(output, tmp_path):
    first = next(output.glob("runs/*"))
    copied = shutil.copytree(first, tmp_path / "outputs/runs" / first.name)
    html = page(tmp_path / "outputs", [])
    assert "Runs trained on tiny" in html
    assert 'class="sample"' in html
    shutil.rmtree(copied / "predictions")
    html = page(tmp_path / "outputs", [])
    assert "Runs trained on tiny" in html
    assert 'class="sample"' not in html
    assert "Left out" not in html


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: no such folder, and not KEY=VALUE"),
        (["."], "run=.: no finished run"),
        (["tables=[table99]"], "tables=[table99]: no such table; tables are table1"),
        ([".", "seed=1"], "either folders of runs or KEY=VALUE; both are given"),
    ],
)
def test_a_mistake_is_one_line(arguments, said, tiny, tmp_path):
    tiny = tiny if arguments[0].startswith("tables") else []
    ran = commands.run(tmp_path, "report.py", *tiny, *arguments, code=1)
    assert ran.err.startswith(f"error: {said}")
    assert ran.err.count("\n") == 1


def test_a_sweep_without_a_finished_run_says_what_trains_them(tiny, tmp_path):
    ran = commands.run(tmp_path, "report.py", *tiny, "seed=0,1", code=1)
    assert ran.err.startswith("error: no run is finished of flix-tiny-seed0-")
    assert "`python train.py -m` trains them" in ran.err
    commands.run(tmp_path, "report.py", "--if-finished", *tiny, "seed=0,1", code=3)


def test_ranks_are_one_text_and_those_of_the_mixture_count_too():
    runs = [made(flix={"ranks": {"task": 4}}, value=value) for value in (50.0, 60.0)]
    for one, more in zip(runs, ({"language": 2}, {"language": 0, "family": 2}), strict=True):
        OmegaConf.update(one.cfg, "mixture.ranks", {"task": 1, **more}, force_add=True)
    report = Comparison.of(runs).report("Mine")
    assert report.tables[0].columns[0].head == "ranks"
    assert [*lines(report)["Methods"]] == ["task 4 + language 2", "task 4 + family 2"]
