"""What is left of some sweeps: runs, states, time."""

import re

import pytest
from swept import swept

import commands
from flix_lightning.common import cli
from flix_lightning.reports.plan import report
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
    """Write results with what the plan of runs reads."""
    fields = {"task": None, "language": None, "seen": None, "active": "all", "n": 8, "step": 3}
    fields |= {"run": plan.id, "method": plan.method, "mixture": "joint", "seed": plan.cfg.seed}
    dataset = fields | {"task": "ner", "language": "sw", "seen": "seen", "metric": "span_f1", "value": 1.0}
    rows = [Row(**dataset, split=split) for split in ("validation", "test")]
    results.write(plan.results, [Row(**fields, split="train", metric="seconds", value=seconds), *rows])


def table(plans, left_out=()):
    """(method, seed) -> (state, time, tables) of each line, and the notes."""
    (found,) = report(plans, left_out).tables
    (section,) = found.sections
    names = [re.fullmatch("(.*)-joint-seed(.)-.*", line[0]).groups() for line in section.lines]
    return dict(zip(names, (line[1:] for line in section.lines), strict=True)), " ".join(found.footnotes)


def test_a_run_of_two_tables_is_one_run(plans):
    lines, _ = table(plans)
    assert len(lines) == 6
    assert {name: tables for (name, _), (*_, tables) in lines.items()} == {
        "flix": "table5 table32",
        "flix-shared": "table5",
        "compute-matched": "table5",
    }


def test_without_a_finished_run_the_time_is_unknown(plans):
    lines, notes = table(plans)
    assert {line[:2] for line in lines.values()} == {("to do", "unknown")}
    assert "6 runs: 0 finished, 6 left; time left, one after another: unknown." in notes


def test_time_is_that_of_alike_runs_else_of_any(plans):
    by_name = {(plan.method, plan.cfg.seed): plan for plan in plans}
    finish(by_name["FLix", 0], 100)
    finish(by_name["Compute-matched", 1], 60)
    by_name["FLix", 1].checkpoints.mkdir(parents=True)
    lines, notes = table(plans, ["single_ner_bbj"])
    assert {name: line[:2] for name, line in lines.items()} == {
        ("flix", "0"): ("finished", "0:01:40"),
        ("flix", "1"): ("begun", "0:01:40"),
        ("flix-shared", "0"): ("to do", "0:01:20"),
        ("flix-shared", "1"): ("to do", "0:01:20"),
        ("compute-matched", "0"): ("to do", "0:01:00"),
        ("compute-matched", "1"): ("finished", "0:01:00"),
    }
    assert "6 runs: 2 finished, 4 left; time left, one after another: 0:05:20." in notes
    assert "left out: single_ner_bbj." in notes


def test_when_all_is_finished_nothing_is_left(plans):
    for plan in plans:
        finish(plan, 10)
    assert "6 runs: 6 finished, 0 left; time left, one after another: 0:00:00." in table(plans)[1]


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


@pytest.mark.parametrize(
    ("given", "words"), [("+sweeps=table51", "table51"), ("mixture=joint", "+sweeps=table1, or leave it out")]
)
def test_a_mistake_in_the_command_is_one_line(given, words, tmp_path):
    said = commands.run(tmp_path, "plan.py", given, code=1)
    assert said.err.startswith("error: ")
    assert words in said.err
    assert said.err.count("\n") == 1
