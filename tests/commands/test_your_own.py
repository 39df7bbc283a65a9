"""docs/your-own.md from an empty folder: own codes, task, kind and data, without touching the package."""

import json
import re
import shlex

import datasets
import pytest
from tiny_runs import fact, json_lines, rows

import commands
from commands import REPOSITORY

PAGE = (REPOSITORY / "docs/your-own.md").read_text()
FILES = dict(re.findall(r"```(?:yaml|json)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = [
    line.partition("    #")[0].split(maxsplit=1)[1]
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]
#: What each language has, with the number of lines.
DATA = {
    "quz": {"train": 8, "validation": 2, "test": 3},
    "quy": {"train": 8, "validation": 2, "test": 3},
    "own1": {"test": 3},
}


def package():
    """Every file of the package with its time."""
    places = [path for name in ("src", "conf", "sweeps") for path in (REPOSITORY / name).rglob("*")]
    return {path: path.stat().st_mtime_ns for path in places if path.is_file() and path.suffix != ".pyc"}


@pytest.fixture(scope="module")
def small(base):
    return [
        f"model.pretrained={base}", "logger=[csv]", "trainer.max_steps=3", "trainer.batch_size=8",
        "trainer.micro_batch_size=8", "evaluation.every=3", "flix.controls=[]", "data.max_input_length=48",
        "data.max_target_length=6",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory, small):
    """A folder outside the repository where the commands of the page were run in their order."""
    folder = tmp_path_factory.mktemp("home")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for code, splits in DATA.items():
        for split, count in splits.items():
            lines = [{"article": f"{split} {'x' * n}", "headline": f"{code} {n}"} for n in range(count)]
            path = folder / f"news/{code}/{split}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            datasets.Dataset.from_list(lines).to_parquet(path)
    before, printed = package(), {}
    for command in COMMANDS:
        script, *arguments = shlex.split(command)
        run = next(iter((folder / "outputs/runs").glob("flix-news-*")), None)
        arguments = [one.replace("outputs/runs/RUN", str(run)) for one in arguments]
        if "+debug=smoke" in arguments:
            arguments += small[:2]
        elif "data=news" in arguments:
            arguments += small
        printed[script] = commands.run(folder, script, *arguments).out  # of the last command of its script
    assert package() == before
    return folder, printed


def runs(home):
    return {path.name.split("-news-")[0]: path for path in (home[0] / "outputs/runs").iterdir()}


def test_the_page_has_six_steps_and_all_files():
    assert re.findall(r"^## (\d)\.", PAGE, re.MULTILINE) == list("123456")
    assert {*FILES} == {
        "mine/task/headlines.yaml",
        "mine/data/news.yaml",
        "mine/mixture/news.yaml",
        "lines.jsonl",
    }
    scripts = [command.split()[0] for command in COMMANDS]
    assert scripts == ["train.py", "train.py", "report.py", "dashboard.py", "predict.py", "export.py"]


def test_three_methods_are_trained_and_matched(home):
    found = runs(home)
    assert found.keys() == {"flix", "compute-matched", "param-matched"}
    assert {name: fact(path, "rank") for name, path in found.items()} == {
        "flix": 2 + 4 + 4,
        "compute-matched": 2 + 4 + 4,
        "param-matched": 2 + 2 * 4 + 4,  # one task, two trained languages, one family
    }
    parameters = {name: fact(path, "total_parameters") for name, path in found.items()}
    assert parameters["flix"] == parameters["param-matched"]
    text = " ".join(PAGE.split())
    assert "FLix's active rank here, 10, and Param-matched the rank of all its features together, 14" in text


def test_all_of_the_data_is_evaluated_by_all_metrics(home):
    for path in runs(home).values():
        tested = {(row["language"], row["seen"], row["metric"]) for row in rows(path, split="test")}
        assert tested == {
            (language, "unseen_language" if language == "own1" else "seen", metric)
            for language in DATA
            for metric in ("rougeL", "chrf")
        }
        assert all(row["n"] == DATA[row["language"]]["test"] for row in rows(path, split="test"))


def test_the_smoke_run_tells_that_all_works(home):
    (path,) = (home[0] / "smoke/runs").iterdir()
    assert rows(path, split="test")


def test_report_and_dashboard_show_the_comparison(home):
    folder, printed = home
    told = printed["report.py"]
    assert all(name in told for name in ("FLix", "Compute-matched", "Param-matched", "headlines"))
    assert "does not match" not in told
    assert {path.name for path in (folder / "outputs/tables").iterdir()} >= {
        "comparison.md",
        "comparison.csv",
    }
    page = (folder / "outputs/dashboard.html").read_text()
    assert "Param-matched" in page
    assert "headlines" in page
    assert '<dd dir="auto">own1 0</dd>' in page  # a target, beside what the methods wrote


def test_an_unseen_language_is_answered_with_the_rows_of_its_family(home):
    (line,) = json_lines(home[0] / "answers.jsonl")
    assert line["features"] == ["task:headlines", "family:Quechuan"]
    assert line["dropped"] == ["language:own1"]
    assert line["read"] == "headline in My language: Kay wata."


def test_the_adapter_holds_all_features_of_its_language(home):
    config = json.loads((home[0] / "adapters/headlines-quz/adapter_config.json").read_text())
    assert config["r"] == 2 + 4 + 4
