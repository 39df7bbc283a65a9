"""Every command and snippet of the README is run: the long ones on few steps and examples."""

import json
import os
import re
import shlex
import shutil
import subprocess

import pytest
from servers import serving

import commands

README = (commands.REPOSITORY / "README.md").read_text()

#: What makes a run a matter of seconds.
SMALL = """trainer.max_steps=2 evaluation.every=2 evaluation.validation_cap=1 evaluation.test_cap=1
    data.max_target_length=8 data.root.train=8 data.root.validation=1 data.root.test=1""".split()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [line.partition(" #")[0].strip() for block in blocks("sh") for line in block.strip().splitlines()]
OF_TRAIN = [one for one in COMMANDS if "train.py" in one]
OF_REPORT = [one for one in COMMANDS if "report.py" in one]
OF_PLAN = [one for one in COMMANDS if " plan.py" in one]
OF_EXPORT = [one for one in COMMANDS if "export.py" in one]
OF_PREDICT = [one for one in COMMANDS if "predict.py" in one]
OF_EVALUATE = [one for one in COMMANDS if "evaluate.py" in one]
OF_MAKE = [one for one in COMMANDS if one.startswith("make ")]
AS_THEY_STAND = [one for one in COMMANDS if "python -m" in one]


def test_every_command_is_run_here():
    used = {*OF_TRAIN, *OF_REPORT, *OF_PLAN, *OF_EXPORT, *OF_PREDICT, *OF_EVALUATE, *OF_MAKE, *AS_THEY_STAND}
    assert set(COMMANDS) == used
    # In test_trials.py and test_benchmarks.py.
    tested_elsewhere = {"make chaos", "make soak MINUTES=60", "make bench", "make bench-quick"}
    assert set(OF_MAKE) == {
        "make test",
        "make xtreme-up",
        "make dashboard",
        *tested_elsewhere,
        *(f"make {target}" for target in MADE),
    }
    assert len(OF_REPORT) == len(OF_PLAN) == len(OF_PREDICT) == len(OF_EVALUATE) == 1


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where all of the README's runs go."""
    return tmp_path_factory.mktemp("readme")


def arguments(command):
    _, script, *rest = shlex.split(command)
    return script, rest


@pytest.mark.parametrize("command", OF_TRAIN)
def test_train(command, home):
    script, rest = arguments(command)
    if "start.run=outputs/runs/RUN" in rest:
        run = next((home / "outputs/runs").glob("flix-joint-*/results.jsonl")).parent
        rest = [one.replace("outputs/runs/RUN", str(run)) for one in rest]
    own_data = next((one for one in rest if one.startswith("data.root=")), None)
    if own_data:  # no hub here, no download: the model and the folder are ones that the machine has
        folder = next((home / "outputs/data").glob("cldr-*"))
        swapped = {
            own_data: f"data.root={folder}",
            "model.pretrained=google/mt5-small": "model.pretrained=cldr-base",
        }
        rest = [swapped.get(one, one) for one in rest]
        rest = [*dict.fromkeys([*rest, "data.allow_missing=true"])]  # as CLDR lacks some languages
    small = [one for one in SMALL if not own_data or not one.startswith("data.root")]
    ran = commands.run(home, script, *rest, *small)
    assert "error" not in ran.err
    assert list((home / "outputs/runs").glob("*/results.jsonl"))


@pytest.mark.parametrize("command", OF_REPORT)
def test_report_of_the_sweep_above_it(command, home):
    script, rest = arguments(command)
    swept = [one for one in OF_TRAIN if set(rest) <= set(shlex.split(one))]
    assert len(swept) == 1
    ran = commands.run(home, script, *rest, *SMALL)
    assert "Table 1" in ran.out
    assert "Missing" not in ran.out


@pytest.mark.parametrize("command", OF_PLAN)
def test_plan_of_the_sweep_above_it(command, home):
    script, rest = arguments(command)
    ran = commands.run(home, script, *rest, *SMALL)
    assert "6 runs: 6 finished, 0 left; time left, one after another: 0:00:00." in ran.out


def test_every_target_that_is_named_is_one():
    named = {*re.findall(r"`make ([a-z0-9-]+)", README)} - {"reproduce-table"}  # N of reproduce-tableN
    assert named >= {"plan", "reproduce-all", "reproduce-figure2"}
    for target in named:
        planned = subprocess.run(["make", "-n", target], cwd=commands.REPOSITORY, capture_output=True)
        assert planned.returncode == 0, target


@pytest.fixture(scope="module")
def run(home):
    """A run of the commands above."""
    return next((home / "outputs/runs").glob("flix-joint-*/results.jsonl")).parent


@pytest.mark.parametrize("command", OF_EXPORT)
def test_export_of_a_run_above_it(command, home, run):
    script, rest = arguments(command)
    (out,) = [one.removeprefix("out=") for one in rest if one.startswith("out=")]
    place = home / f"{script}-{OF_EXPORT.index(command)}"  # as the second writes above the first
    ran = commands.run(place, script, *(one.replace("outputs/runs/RUN", str(run)) for one in rest))
    written = [place / line for line in ran.out.splitlines() if line.startswith(out)]
    assert written
    for folder in written:
        assert (folder / "README.md").exists()
        assert list(folder.glob("*.safetensors"))


@pytest.mark.parametrize("command", OF_PREDICT)
def test_predict_by_a_run_above_it(command, home, run):
    script, rest = arguments(command)
    (line,) = re.findall(r"`(\{\"text\": .*?\})`", README)
    (home / "lines.jsonl").write_text(line.replace("…", '"Rais alifika Dodoma."') + "\n")
    commands.run(home, script, *(one.replace("outputs/runs/RUN", str(run)) for one in rest))
    (answer,) = (home / "answers.jsonl").read_text().splitlines()
    assert json.loads(answer).keys() == {"prediction"}


@pytest.mark.parametrize("command", OF_EVALUATE)
def test_evaluate_a_run_above_it(command, home, run):
    script, rest = arguments(command)
    data = home / "mine"
    shutil.copytree(next((home / "outputs/data").glob("cldr-*")) / "ner", data / "ner")
    swapped = {"run=outputs/runs/RUN": f"run={run}", "data.root=FOLDER_OR_ARCHIVE": f"data.root={data}"}
    ran = commands.run(home, script, *(swapped[one] for one in rest))
    (predictions,) = (home / f"outputs/evaluations/{run.name}").glob("*/predictions")
    assert str(predictions.relative_to(home)) in ran.out
    tested = {path.relative_to(data) for path in data.glob("*/test/*.jsonl")}
    assert {path.relative_to(predictions) for path in predictions.rglob("*.jsonl")} == tested


@pytest.mark.parametrize("command", AS_THEY_STAND)
def test_as_it_stands(command):
    ran = subprocess.run(
        command, shell=True, cwd=commands.REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert "target" in ran.stdout


#: Target -> overrides that leave fewer runs, how many these are, the tables it saves, what each begins with.
MADE = {
    "reproduce-table1": ("", 6, ["table1", "table1-languages"], "Table 1"),
    "reproduce-table3": ("flix.dropout=0.0,0.7", 2, ["table3"], "Table 3"),
    "gates": ("", 2, ["gates"], "The benchmark's gates"),
    "languages": ("mixture=joint_5,joint_10", 4, ["languages"], "FLix minus"),
    "search": ("optimizer.learning_rate=1e-3 flix.dropout=0.0", 3, ["search_lora", "search_flix"], "Search"),
}


def make(target, arguments):
    """As on a user's shell: make must not be told that another make runs this test."""
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL")}
    command = ["make", target, f"ARGS={arguments}"]
    return subprocess.run(
        command, cwd=commands.REPOSITORY, env=environment, capture_output=True, text=True, timeout=540
    )


@pytest.mark.parametrize("target", MADE)
def test_make(target, tmp_path):
    fewer, count, tables, title = MADE[target]
    small = " ".join([*SMALL, fewer, f"output={tmp_path}", "trainer.batch_size=8"])

    first = make(target, small)
    assert first.returncode == 0, first.stdout + first.stderr
    assert title in first.stdout
    saved = {path.name for path in (tmp_path / "tables").iterdir()}
    assert saved == {f"{table}{suffix}" for table in tables for suffix in (".md", ".png")}
    results = sorted(tmp_path.glob("runs/*/results.jsonl"))
    assert len(results) == count
    written = [path.stat().st_mtime_ns for path in results]
    second = make(target, small)
    assert second.returncode == 0, second.stderr
    assert first.stdout.endswith(second.stdout[second.stdout.rindex(title) :])
    assert [path.stat().st_mtime_ns for path in results] == written


def test_make_dashboard_of_the_runs_above(home):
    made = make("dashboard", " ".join([*SMALL, f"output={home}/outputs"]))
    assert made.returncode == 0, made.stderr
    page = (home / "outputs/dashboard.html").read_text()
    assert "Against Param-matched LoRA" in page
    assert "Samples" in page


def test_make_xtreme_up(tmp_path):
    """What it does is tested in test_download.py: here, that the target is the command."""
    with serving({}) as server:
        ended = subprocess.run(
            ["make", "xtreme-up", f"ARGS={tmp_path} --archive {server.url}/no.tgz"],
            cwd=commands.REPOSITORY, env={**os.environ, "no_proxy": "*"}, capture_output=True, text=True,
        )  # fmt: skip
    assert ended.returncode != 0
    assert "CC-BY-NC-4.0: not for commercial use" in ended.stdout
    assert f"error: {server.url}/no.tgz: the server says 404" in ended.stderr


def test_make_test_is_what_ci_runs():
    assert (commands.REPOSITORY / ".ci/run").read_text().splitlines()[-1] == "exec make test"
    planned = subprocess.run(["make", "-n", "test"], cwd=commands.REPOSITORY, capture_output=True, text=True)
    assert "pytest" in planned.stdout
    assert "ruff check" in planned.stdout


def test_snippets(monkeypatch, run):
    monkeypatch.chdir(commands.REPOSITORY)
    of_adapter, of_run = blocks("python")
    names = {}
    exec(of_adapter, names)
    assert set(names["space"].ranks) == {"task:ner", "language:sw", "language:yo"}
    assert all(parameter.requires_grad for parameter in names["adapter"].parameters())
    exec(of_run.replace("outputs/runs/RUN", str(run)), names)
    assert len(names["answers"]) == 2
