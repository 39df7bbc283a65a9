"""What is left of some sweeps: runs, states, time."""

import re

import pytest
from swept import swept

import commands
from flix_lightning.common import cli
from flix_lightning.reports.plan import entries, expected_seconds, report
from flix_lightning.runs import rows as results
from flix_lightning.runs.rows import Row
from flix_lightning.runs.run import resolve_all


@pytest.fixture
def plans(data, tmp_path):
    """FLix, FLix-shared and compute-matched LoRA on the joint mixture, two seeds each; FLix twice."""
    cfgs = [cfg.copy() for sweep in ("table5", "table32") for cfg in swept(sweep, "seed=0,1")]
    for cfg in cfgs:
        cfg.data.root, cfg.output = str(data), str(tmp_path)
    found, left_out = resolve_all(cfgs)
    assert (len(found), left_out) == (8, [])
    return found


def finish(plan, seconds):
    """Write the one row that a schedule reads."""
    fields = {"task": None, "language": None, "seen": None, "active": "all", "n": 8, "step": 3}
    fields |= {"run": plan.id, "method": plan.cfg.flix.name, "mixture": "joint", "seed": plan.cfg.seed}
    results.write(plan.results, [Row(**fields, split="train", metric="seconds", value=seconds)])


def state(found):
    return {(one.plan.cfg.flix.name, one.plan.cfg.seed): one.state for one in found}


def expected(found):
    times = expected_seconds(found)
    return {re.sub("-joint-seed(.)-.*", r" \1", name): seconds for name, seconds in times.items()}


def test_a_run_of_two_tables_is_one_run(plans):
    found = entries(plans)
    assert len(found) == 6
    assert {one.tables for one in found if one.plan.cfg.flix.name == "FLix"} == {("table5", "table32")}
    assert {one.tables for one in found if one.plan.cfg.flix.name != "FLix"} == {("table5",)}


def test_without_a_finished_run_the_time_is_unknown(plans):
    found = entries(plans)
    assert set(state(found).values()) == {"to do"}
    assert expected_seconds(found) == {}
    assert "6 runs: 0 finished, 6 left; time left, one after another: unknown." in report(found).markdown()


def test_time_is_that_of_alike_runs_else_of_any(plans):
    by_name = {(plan.cfg.flix.name, plan.cfg.seed): plan for plan in plans}
    finish(by_name["FLix", 0], 100)
    finish(by_name["Compute-matched", 1], 60)
    by_name["FLix", 1].checkpoints.mkdir(parents=True)
    found = entries(plans)
    assert state(found) == {
        ("FLix", 0): "finished",
        ("FLix", 1): "begun",
        ("FLix-shared", 0): "to do",
        ("FLix-shared", 1): "to do",
        ("Compute-matched", 0): "to do",
        ("Compute-matched", 1): "finished",
    }
    assert expected(found) == {
        "flix 1": 100,
        "flix-shared 0": 80,
        "flix-shared 1": 80,
        "compute-matched 0": 60,
    }
    text = report(found, ["single_ner_bbj"]).markdown()
    assert "6 runs: 2 finished, 4 left; time left, one after another: 0:05:20." in text
    assert "left out: single_ner_bbj." in text


def test_when_all_is_finished_nothing_is_left(plans):
    for plan in plans:
        finish(plan, 10)
    text = report(entries(plans)).markdown()
    assert "6 runs: 6 finished, 0 left; time left, one after another: 0:00:00." in text


def test_the_command_prints_every_run_and_trains_none(data, tmp_path):
    overrides = ["+sweeps=table5", "data=xtreme_up", f"data.root={data}", "data.allow_missing=true"]
    plans, _ = resolve_all(cli.sweep_configs([*overrides, f"output={tmp_path}"]))
    finish(plans[0], 75)
    said = commands.run(tmp_path / "elsewhere", "plan.py", *overrides, f"output={tmp_path}")
    assert not said.err
    lines = said.out.splitlines()
    for plan in plans:
        (line,) = [line for line in lines if plan.path.name in line]
        assert line.split()[1:3] == (["finished", "0:01:15"] if plan is plans[0] else ["to", "do"])
    assert "3 runs: 1 finished, 2 left; time left, one after another: 0:02:30." in said.out
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [plans[0].path.name]


def test_a_mistake_in_the_command_is_one_line(tmp_path):
    said = commands.run(tmp_path, "plan.py", "+sweeps=table51", code=1)
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
