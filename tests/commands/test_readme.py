"""The README and the pages of docs/: every command runs on few steps and examples, every name is there."""

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from unittest import mock

import pytest
import yaml
from servers import serving

import commands
from commands import REPOSITORY
from flix_lightning.adapter import projection

PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text()
    for path in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("**/*.md"))]
}
#: Pages whose commands have tests of their own, or are of the past: what made a result of an older version.
TESTED_ELSEWHERE = {"docs/cluster.md", "docs/models.md", "docs/your-own.md"}
WITH_COMMANDS = [
    page for page in PAGES if page not in TESTED_ELSEWHERE and not page.startswith("docs/results")
]

#: What makes a run a matter of seconds.
FEW_STEPS = """trainer.max_steps=2 evaluation.every=2 evaluation.validation_cap=1 evaluation.test_cap=1
    data.max_target_length=8""".split()
FEW_EXAMPLES = "data.root.train=8 data.root.validation=1 data.root.test=1".split()
SMALL = [*FEW_STEPS, *FEW_EXAMPLES]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


def listed(page):
    """The commands of a page, without their comments."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := line.partition(" #")[0].strip())]


def not_on_earlier_pages(page):
    earlier = [one for other in WITH_COMMANDS[: WITH_COMMANDS.index(page)] for one in listed(other)]
    return [command for command in listed(page) if command not in earlier]


def script_of(command):
    return next((word for word in shlex.split(command) if word.endswith(".py")), None)


OF_MAKE = {command for page in WITH_COMMANDS for command in listed(page) if command.startswith("make ")}
MODULES = sorted({one for page in WITH_COMMANDS for one in listed(page) if "python -m" in one})
SCRIPTS = [page for page in WITH_COMMANDS if any(map(script_of, not_on_earlier_pages(page)))]

#: Of `make` in other tests: test_download.py, test_trials.py, test_search.py and test_benchmarks.py.
MADE_ELSEWHERE = {
    "make test", "make xtreme-up", "make dashboard", "make chaos", "make soak MINUTES=60", "make bench",
    "make bench-quick", "make search",
}  # fmt: skip

#: Commands that need a network, or another machine: only their syntax is checked.
NOT_RUN = ("grep ", "pip ", "export ", "make -o setup ")

#: test_own_tasks.py runs commands with these, on the files of their page.
OF_OWN_TASKS = ("--config-dir mine", "outputs/runs/NEWS")


def test_every_command_is_run_here_or_elsewhere():
    assert OF_MAKE - {one for one in OF_MAKE if one.startswith(NOT_RUN)} == MADE_ELSEWHERE | {
        f"make {target}" for target in MADE
    }
    for page in WITH_COMMANDS:
        for command in listed(page):
            parsed = subprocess.run(["bash", "-n"], input=command, text=True, capture_output=True)
            assert parsed.returncode == 0, f"{page}: {command}: {parsed.stderr}"
            known = script_of(command) or "python -m" in command or command in OF_MAKE
            assert known or command.startswith(NOT_RUN), f"{page}: {command}"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a finished run, and with the benchmark's data that it was trained on."""
    folder = tmp_path_factory.mktemp("pages")
    commands.run(folder, "train.py", "mixture=joint_5", "logger=[csv]", *SMALL)
    return folder


@pytest.fixture(scope="module")
def run(home):
    return next((home / "outputs/runs").glob("flix-joint_5-*/results.jsonl")).parent


def small(arguments):
    """Overrides that make the runs of a command small, where it does not choose them itself."""
    mixture = [] if any("mixture=" in one or "+sweeps=" in one for one in arguments) else ["mixture=joint_5"]
    examples = [] if "data=xtreme_up" in arguments else FEW_EXAMPLES
    return [*mixture, "flix.controls=[]", "logger=[csv]", *FEW_STEPS, *examples]


@pytest.mark.parametrize("page", SCRIPTS)
def test_the_commands_of_a_page_in_their_order(page, home, run, tmp_path):
    data = next((home / "outputs/data").glob("cldr-*"))
    # No hub here, no download: the model and the folder are ones that the machine has.
    here = {
        "outputs/runs/RUN": str(run),
        "FOLDER_OR_ARCHIVE": str(data),
        "outputs/data/xtreme_up": str(data),
        "google/mt5-small": "cldr-base",
        "model.pretrained=NAME": "model.pretrained=cldr-base",
    }
    for number, command in enumerate(not_on_earlier_pages(page)):
        if not (script := script_of(command)) or any(one in command for one in OF_OWN_TASKS):
            continue
        for name, replacement in here.items():
            command = command.replace(name, replacement)
        arguments = shlex.split(command)[2:]
        folder = tmp_path
        is_of_folders = script == "report.py" and not any("=" in one for one in arguments)
        if script in ("train.py", "report.py", "plan.py") and not is_of_folders:
            if "data=xtreme_up" in arguments and "data.allow_missing=true" not in arguments:
                arguments.append("data.allow_missing=true")  # as CLDR lacks some languages
            arguments += small(arguments)
        if script == "export.py":
            folder = tmp_path / f"export-{number}"  # as one command writes above what another wrote
        if script == "predict.py":
            (line,) = re.findall(r"`(\{\"text\": .*?\})`", PAGES[page])
            (tmp_path / "lines.jsonl").write_text(line.replace("…", '"Rais alifika Dodoma."') + "\n")
        if script == "evaluate.py":
            folder = tmp_path / f"evaluate-{number}"
            if any(str(data) in one for one in arguments):
                shutil.copytree(data / "ner", folder / "mine/ner")
                arguments = [one.replace(str(data), "mine") for one in arguments]
        CHECKS[script](commands.run(folder, script, *arguments), folder)


def check_train(ran, folder):
    assert "error" not in ran.err
    assert list((folder / "outputs/runs").glob("*/results.jsonl"))


def check_report(ran, folder):
    assert "Saved in outputs/tables" in ran.out
    assert "Missing" not in ran.out


def check_plan(ran, folder):
    assert "6 runs: 6 finished, 0 left; time left, one after another: 0:00:00." in ran.out


def check_export(ran, folder):
    written = [folder / line for line in ran.out.splitlines() if (folder / line / "README.md").exists()]
    assert written
    assert all(list(one.glob("*.safetensors")) for one in written)


def check_predict(ran, folder):
    (answer,) = (folder / "answers.jsonl").read_text().splitlines()
    assert json.loads(answer).keys() == {"prediction"}


def check_evaluate(ran, folder):
    (predictions,) = (folder / "outputs/evaluations").glob("*/*/predictions")
    assert str(predictions.relative_to(folder)) in ran.out
    scored = {path.relative_to(predictions) for path in predictions.rglob("*.jsonl")}
    assert scored
    if (folder / "mine").exists():
        assert scored == {
            path.relative_to(folder / "mine") for path in (folder / "mine").glob("*/test/*.jsonl")
        }


CHECKS = {
    "train.py": check_train,
    "report.py": check_report,
    "plan.py": check_plan,
    "export.py": check_export,
    "predict.py": check_predict,
    "evaluate.py": check_evaluate,
}


@pytest.mark.parametrize("command", MODULES)
def test_a_module_as_it_stands(command):
    ran = subprocess.run(command, shell=True, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ("target" if command.endswith(" sw") else "lacking") in ran.stdout


#: Target -> overrides that leave fewer runs, how many these are, the tables it saves, what each begins with.
MADE = {
    "reproduce-table1": ("", 6, ["table1", "table1-languages", "table1-mistakes"], "Table 1"),
    "reproduce-table3": ("flix.dropout=0.0,0.7", 2, ["table3"], "Table 3"),
    "gates": ("", 2, ["gates"], "The benchmark's gates"),
    "languages": ("mixture=joint_5,joint_10", 4, ["languages"], "FLix minus"),
}


def make(target, arguments):
    return commands.make(target, f"ARGS={arguments}", limit=540)


def test_make_reproduce_table1(tmp_path):
    _, count, tables, title = MADE["reproduce-table1"]
    small = " ".join([*SMALL, f"output={tmp_path}", "trainer.batch_size=8", "flix.controls=[]"])

    first = make("reproduce-table1", small)
    assert first.returncode == 0, first.stdout + first.stderr
    results = sorted(tmp_path.glob("runs/*/results.jsonl"))
    check_tables(tmp_path, first.stdout, count, tables, title)
    written = [path.stat().st_mtime_ns for path in results]
    second = make("reproduce-table1", small)
    assert second.returncode == 0, second.stderr
    assert first.stdout.endswith(second.stdout[second.stdout.rindex(title) :])
    assert [path.stat().st_mtime_ns for path in results] == written


@pytest.mark.parametrize("target", sorted(MADE.keys() - {"reproduce-table1"}))
def test_what_a_target_makes(target, tmp_path):
    """The commands that make would run, in processes that start faster."""
    fewer, count, tables, title = MADE[target]
    small = " ".join([*SMALL, fewer, f"output={tmp_path}", "trainer.batch_size=8"])
    planned = subprocess.run(
        ["make", "-n", target, f"ARGS={small}"], cwd=REPOSITORY, capture_output=True, text=True
    )
    sweeps = re.findall(r"train\.py -m (.*?) trainer\.progress=lines", planned.stdout)
    assert sweeps
    printed = ""
    for sweep in map(shlex.split, sweeps):
        commands.run(tmp_path, "train.py", "-m", *sweep, "logger=[csv]")
        # Two steps pass no gate.
        code = int(target == "gates")
        printed += commands.run(tmp_path, "report.py", *sweep, "logger=[csv]", code=code).out
    check_tables(tmp_path, printed, count, tables, title)


def check_tables(output, printed, count, tables, title):
    assert title in printed
    for suffix in (".md", ".png"):
        assert {path.stem for path in (output / "tables").glob(f"*{suffix}")} == set(tables)
    scores = list((output / "tables").glob("*.csv"))
    assert scores
    assert {path.stem for path in scores} <= set(tables)
    assert len(list(output.glob("runs/*/results.jsonl"))) == count


def test_make_dashboard_of_a_run(home):
    made = make("dashboard", " ".join([*SMALL, f"output={home}/outputs"]))
    assert made.returncode == 0, made.stderr
    assert "Samples" in (home / "outputs/dashboard.html").read_text()


def test_make_xtreme_up(tmp_path):
    """What it does is tested in test_download.py: here, that the target is the command."""
    with serving({}) as server:
        ended = subprocess.run(
            ["make", "xtreme-up", f"ARGS={tmp_path} --archive {server.url}/no.tgz"],
            cwd=REPOSITORY, env={**os.environ, "no_proxy": "*"}, capture_output=True, text=True,
        )  # fmt: skip
    assert ended.returncode != 0
    assert "CC-BY-NC-4.0: not for commercial use" in ended.stdout
    (error,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert f"{server.url}/no.tgz" in error
    assert "404" in error


def test_make_test_is_what_ci_runs():
    assert (REPOSITORY / ".ci/run").read_text().splitlines()[-1] == "exec make test"
    planned = subprocess.run(["make", "-n", "test"], cwd=REPOSITORY, capture_output=True, text=True)
    assert "pytest" in planned.stdout
    assert "ruff check" in planned.stdout


def test_every_target_that_is_named_is_one():
    named = {target for text in PAGES.values() for target in re.findall(r"`make ([a-z0-9-]+)", text)}
    assert named >= {"plan", "reproduce-all", "reproduce-figure2"}
    for target in named - {"reproduce-table"}:  # N of reproduce-tableN
        planned = subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True)
        assert planned.returncode == 0, target


def test_snippets(monkeypatch, run, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").symlink_to(REPOSITORY / "src")
    monkeypatch.setattr(projection, "HfApi", mock.MagicMock())  # no hub here
    names = {}
    for block in blocks("docs/library.md", "python"):
        exec(block, names)
        assert set(names["adapter"].space.ranks) == {"task:ner", "language:sw", "language:yo"}
        assert all(parameter.requires_grad for parameter in names["adapter"].parameters())
    (of_run,) = blocks("docs/predict-and-evaluate.md", "python")
    exec(of_run.replace("outputs/runs/RUN", str(run)), names)
    assert len(names["answers"]) == 2


def anchors(text):
    """The anchors that a reader of Markdown makes of a page's headings."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", PAGES[page]):
        path, _, anchor = target.partition("#")
        place = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(place.read_text()), target


@pytest.mark.parametrize("page", PAGES)
def test_every_name_beside_a_file_is_defined_in_it(page):
    for path, names in re.findall(r"\]\(([\w./]+\.py)\)((?:,?\s+`[A-Za-z_][\w.]*`)+)", PAGES[page]):
        source = ((REPOSITORY / page).parent / path).read_text()
        for name in re.findall(r"[A-Za-z_]\w*", names):
            assert re.search(rf"^\s*(?:def|class) {name}\b|^{name}\b.*=", source, re.MULTILINE), (path, name)


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_every_file_that_is_named_is_there(page):
    package = REPOSITORY / "src/flix_lightning"
    rooms = {path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    first = "|".join([*rooms, "conf", "sweeps", "tests", "benchmarks", "trials"])
    named = re.findall(rf"`((?:{first})/[\w./]*)`", PAGES[page])
    assert {f"{room}/" for room in rooms} <= set(named)
    for path in named:
        assert (package / path).exists() or (REPOSITORY / path).exists(), path


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 150


def test_every_page_is_linked_from_the_readme():
    pages = {page for page in PAGES if re.fullmatch(r"docs/[\w-]+\.md", page)}
    assert pages <= set(re.findall(r"\]\((docs/[\w-]+\.md)", PAGES["README.md"]))


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    (paper,) = citation["references"]
    assert " ".join(PAGES["README.md"].split()).count(paper["title"]) == 1
