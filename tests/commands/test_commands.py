"""The commands of the README, on the tiny base."""

import gc
import json
import os
import re
import subprocess
import sys
import weakref

import pytest
from omegaconf import OmegaConf
from tiny_runs import fact, rows

import commands
from flix_lightning.common import cli
from flix_lightning.models import base as models
from flix_lightning.runs.run import Run

DROPOUTS = ["-m", "flix.dropout=0.0,0.3,0.5,0.7", "logger=[csv,wandb]"]


def runs(folder):
    return sorted(path.parent for path in folder.glob("outputs/runs/*/results.jsonl"))


def planned(overrides, folder):
    """The runs that report.py would look for."""
    return sorted(
        Run.resolve(cfg).path for cfg in cli.sweep_configs([*overrides, f"output={folder}/outputs"])
    )


def times(folder):
    """When each file of the runs was written; locks are touched by whoever looks."""
    return {
        path: path.stat().st_mtime_ns for path in folder.glob("outputs/runs/**/*") if path.name != ".lock"
    }


@pytest.fixture(scope="module")
def dropouts(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dropouts")
    commands.run(folder, "train.py", "-m", *tiny, *DROPOUTS[1:])
    return folder


def test_a_multirun_gives_a_run_of_wandb_to_each_of_its_runs(dropouts, tiny):
    assert runs(dropouts) == planned([*tiny, *DROPOUTS[1:]], dropouts)
    assert len(runs(dropouts)) == 4
    assert len({fact(run, "share_without_features") for run in runs(dropouts)}) == 4
    tracked = {run: list(run.glob("wandb/offline-run-*")) for run in runs(dropouts)}
    for run, (folder,) in tracked.items():
        (id,) = {row["run"] for row in rows(run)}
        assert folder.name.endswith(f"-{id}")
        assert (folder / f"run-{id}.wandb").stat().st_size > 0
        # A table at each validation; at the end one of the test and one of each of three controls.
        for pattern, split, evaluations in (("val", "validation", 3), ("test*", "test", 4)):
            files = list(folder.glob(f"files/media/table/{pattern}/*.json"))
            tables = [json.loads(path.read_text()) for path in files]
            assert len(tables) == evaluations
            found = [
                dict(zip(table["columns"], line, strict=True)) for table in tables for line in table["data"]
            ]
            expected = [{key: row[key] for key in tables[0]["columns"]} for row in rows(run, split=split)]
            assert sorted(map(str, found)) == sorted(map(str, expected))


def test_called_again_a_multirun_trains_nothing(dropouts, tiny):
    before = times(dropouts)
    again = commands.run(dropouts, "train.py", "-m", *tiny, *DROPOUTS[1:])
    assert again.out.count("Skipped, finished already: outputs/runs/") == 4
    assert times(dropouts) == before


def test_a_single_run_ends_with_its_scores_and_where_they_are(dropouts, tiny):
    run = next(run for run in runs(dropouts) if OmegaConf.load(run / "config.yaml").flix.dropout == 0.3)
    said = commands.run(dropouts, "train.py", *tiny, "flix.dropout=0.3", *DROPOUTS[2:]).out
    assert f"Run: outputs/runs/{run.name}" in said
    (tracked,) = run.glob("wandb/offline-run-*")
    assert f"wandb sync outputs/runs/{run.name}/wandb/{tracked.name}" in said
    for row in rows(run, split="test", active="all"):
        assert [one for one in said.splitlines() if row["language"] in one and f"{row['value']:.1f}" in one]


def test_methods_side_by_side(tiny, tmp_path):
    """Two processes at one sweep share its runs, and each run is done once."""
    sweep = [*tiny, "trainer.max_steps=1", "flix=flix,compute_matched,param_matched"]
    jobs = [
        commands.start(tmp_path / str(job), "train.py", "-m", *sweep, f"output={tmp_path}/outputs")
        for job in (1, 2)
    ]
    said = "".join(job.wait().out + job.err for job in jobs)
    assert runs(tmp_path) == planned(sweep, tmp_path)
    found = {
        rows(run)[0]["method"]: (
            fact(run, "rank"),
            fact(run, "total_parameters") / fact(run, "active_parameters"),
        )
        for run in runs(tmp_path)
    }
    # Two tasks of rank 4 and three languages of rank 2.
    assert found == {"FLix": (6, 14 / 6), "Compute-matched": (6, 1), "Param-matched": (14, 1)}
    for run in runs(tmp_path):
        assert len(list(run.glob("metrics/version_*"))) == 1
        assert said.count(f"{run.name}: validating") == 1


def test_a_launcher_of_processes(tiny, tmp_path):
    """A process of its own, which ends those that it started. One of the runs is a mistake."""
    sweep = ["+sweeps=table30", *tiny, "trainer.max_steps=1", "flix.dropout=0.0,1.0"]
    command = [sys.executable, commands.REPOSITORY / "train.py", "-m", "hydra/launcher=processes", *sweep]
    # flix_lightning.common.cli set it, where it was imported.
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert ended.returncode == 1, ended.stderr
    assert "error: feature dropout of every kind is 1.0" in ended.stderr
    assert "Traceback" not in ended.stderr
    (done,) = planned([*tiny, "trainer.max_steps=1", "flix.dropout=0.0", "flix=compute_matched"], tmp_path)
    assert runs(tmp_path) == [done]


def test_ranks_of_a_kind(tiny, tmp_path):
    sweep = [*tiny, "trainer.max_steps=1", "flix.ranks.language=1,2"]
    commands.run(tmp_path, "train.py", "-m", *sweep)
    assert runs(tmp_path) == planned(sweep, tmp_path)
    assert sorted(fact(run, "rank") for run in runs(tmp_path)) == [5, 6]


# -- Table 1, on the built-in benchmark cut short

TABLE1 = [
    "+sweeps=table1",
    "data.root.train=4",
    "data.root.validation=2",
    "data.root.test=2",
    "data.max_input_length=32",
    "data.max_target_length=2",
    "trainer.max_steps=1",
    "trainer.batch_size=4",
    "trainer.micro_batch_size=4",
    "trainer.progress=lines",
    "evaluation.validation_cap=1",
    "evaluation.test_cap=1",
    "logger=[csv]",
]


@pytest.fixture(scope="module")
def table1(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("table1")
    commands.run(folder, "train.py", "-m", *TABLE1, f"model.pretrained={base}")
    return folder


def test_table1_sweeps_from_any_folder(table1, base):
    assert runs(table1) == planned([*TABLE1, f"model.pretrained={base}"], table1)
    found = {(row["method"], row["mixture"]) for run in runs(table1) for row in rows(run)}
    methods, mixtures = ("FLix", "Compute-matched", "Param-matched"), ("joint", "semantic_parsing_holdout")
    assert found == {(method, mixture) for method in methods for mixture in mixtures}
    assert len(runs(table1)) == 6


def test_report_prints_and_saves_table1(table1, base):
    for flag in ([], ["--if-finished"]):
        said = commands.run(table1, "report.py", *flag, *TABLE1, f"model.pretrained={base}")
        assert not said.err
        for method in ("FLix", "Compute-matched", "Param-matched"):
            assert method in said.out
        assert "missing" not in said.out.lower()
        for name in ("table1", "table1-languages", "table1-mistakes"):
            assert "FLix" in (table1 / f"outputs/tables/{name}.md").read_text()
            assert (table1 / f"outputs/tables/{name}.png").stat().st_size > 10_000


def test_called_again_table1_trains_nothing(table1, base):
    before = times(table1)
    again = commands.run(table1, "train.py", "-m", *TABLE1, f"model.pretrained={base}")
    assert again.out.count("Skipped, finished already") == 6
    assert times(table1) == before


def test_report_names_a_run_that_is_missing(table1, base):
    gone = runs(table1)[0] / "results.jsonl"
    gone.rename(gone.with_name("elsewhere"))
    arguments = [*TABLE1, f"model.pretrained={base}"]
    try:
        said = commands.run(table1, "report.py", *arguments, code=3).out
        quiet = commands.run(table1, "report.py", "--if-finished", *arguments, code=3)
    finally:
        gone.with_name("elsewhere").rename(gone)
    assert gone.parent.name in "".join(said.split())
    assert not quiet.out + quiet.err


# -- single datasets, of which the data lacks one


@pytest.fixture(scope="module")
def table22(base, data):
    return [
        "+sweeps=table22",
        f"model.pretrained={base}",
        "data=xtreme_up",
        f"data.root={data}",
        "data.allow_missing=true",
        "data.max_input_length=48",
        "data.max_target_length=4",
        "trainer.max_steps=1",
        "trainer.batch_size=4",
        "trainer.micro_batch_size=4",
        "trainer.progress=lines",
        "logger=[csv]",
    ]


def test_a_sweep_goes_on_without_what_the_data_lacks_whole(table22, tmp_path):
    swept = commands.run(tmp_path, "train.py", "-m", *table22)
    assert "Skipped, mixture 'single_qa_in_lang_sw': " in swept.err
    assert {run.name.partition("-seed")[0] for run in runs(tmp_path)} == {
        "compute-matched-single_semantic_parsing_sw",
        "compute-matched-single_ner_sw",
    }
    said = commands.run(tmp_path, "report.py", "--if-finished", *table22)
    assert not said.err
    assert "Table 22" in said.out
    assert "left out: single_qa_in_lang_sw" in said.out
    assert "Missing" not in said.out
    lines = {line.split()[0]: line.split()[1:] for line in said.out.splitlines() if line.strip()}
    scores = {
        rows(run, split="test", active="all")[0]["task"]: rows(run, split="test")[0]["value"]
        for run in runs(tmp_path)
    }
    assert lines["SemParse"][1:] == [f"{scores['semantic_parsing']:.1f}", "34.7†", "23.0†"]
    assert lines["NER"][1:] == [f"{scores['ner']:.1f}", "88.6§", "88.7§"]
    assert lines["QA-InLang"] == ["—", "—", "84.2‡", "87.3‡"]


def test_one_run_of_nothing_is_a_mistake(table22, tmp_path):
    alone = ["mixture=single_dataset", "mixture.task=qa_in_lang", "mixture.language=sw"]
    said = commands.run(tmp_path, "train.py", *table22[1:], *alone, code=1)
    assert said.err.splitlines()[-1].startswith("error: mixture 'single_qa_in_lang_sw': ")
    unsaid = commands.run(tmp_path, "train.py", *table22[1:], *alone[:2], code=1)
    assert unsaid.err == "error: mixture.language has no value; give mixture.language=VALUE\n"


# -- make


def test_make_reproduces_every_table_and_figure_of_the_paper():
    names = [*(f"table{number}" for number in range(1, 51)), "figure2"]
    everything = commands.make("-n", "reproduce-all", "SEEDS=3", "ARGS=data=xtreme_up data.root=there").stdout
    asked = re.findall(r"report\.py --if-finished (.*?) \|\|", everything)
    # In this order, so that Tables 1 and 2 have trained most of the runs that the others show.
    assert asked == [f"+sweeps={name} seed=0,1,2 data=xtreme_up data.root=there" for name in names]
    for name in names[3::20]:
        assert f"train.py -m +sweeps={name} seed=0 " in commands.make("-n", f"reproduce-{name}").stdout
    assert commands.make("-n", "reproduce-table51").returncode != 0


def test_make_plan_asks_for_everything_or_for_one_sweep():
    assert commands.make("-n", "plan").stdout.strip().endswith("plan.py seed=0")
    one = commands.make("-n", "plan", "ARGS=+sweeps=table5", "SEEDS=2").stdout
    assert one.strip().endswith("plan.py seed=0,1 +sweeps=table5")


def test_make_help_lists_every_target():
    listed = re.findall(r"^  make (\S+)", commands.make("help").stdout, re.MULTILINE)
    written = re.findall(r"^([a-z0-9-]+):", (commands.REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert set(listed) == {*written, "reproduce-tableN"}


def without_wandb():
    os.environ.pop("HYDRA_FULL_ERROR", None)  # set by the import that is done again
    for name in [name for name in sys.modules if name.partition(".")[0] in ("flix_lightning", "wandb")]:
        del sys.modules[name]
    sys.modules["wandb"] = None


def test_a_package_that_is_not_installed_is_named(tiny, tmp_path):
    said = commands.run(tmp_path, "train.py", *tiny, code=1, before=without_wandb)
    assert "Traceback" not in said.err
    line = said.err.splitlines()[-1]
    assert re.fullmatch("error: .*wandb.*: pip install .* installs what is needed", line)


def ended_wandb_service():
    os.environ["WANDB_SERVICE"] = "3-1-unix-/nowhere/socket"


def test_a_process_of_wandb_that_has_ended_is_named(tiny, tmp_path):
    said = commands.run(tmp_path, "train.py", *tiny, "logger=[wandb]", code=1, before=ended_wandb_service)
    assert "Traceback" not in said.err
    line = said.err.splitlines()[-1]
    assert re.fullmatch(r"error: W&B does not start \(offline\): .*/nowhere/socket.*needs no W&B", line)


def one_model_at_a_time():
    """Load no base while that of an earlier run is in memory; Python's own collector would hide how long."""
    loaded, load = [], models.load

    def loads(*arguments):
        assert not any(earlier() for earlier in loaded), "the model of an earlier run is still in memory"
        base = load(*arguments)
        loaded.append(weakref.ref(base.model))
        return base

    models.load = loads
    gc.disable()


def test_a_multirun_holds_one_model_at_a_time(tiny, tmp_path):
    """Also after a run that failed."""
    sweep = [*tiny, "trainer.max_steps=1", "flix.controls=[]", "model.targets=nothing,default,all-linear"]
    swept = commands.run(tmp_path, "train.py", "-m", *sweep, before=one_model_at_a_time, code=1)
    assert "nothing" in swept.err
    assert len(runs(tmp_path)) == 2
