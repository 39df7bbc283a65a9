"""The trials run, and notice what they look for."""

import json
import re
import shutil

import pytest
import torch

import commands
from flix_lightning.common.files import write_atomic
from trials import chaos, cluster, soak

ROWS = [
    {"minutes": n / 10, "rss_mib": 800.0 + n % 3, "children_rss_mib": 40.0, "fds": 12, "threads": 7}
    for n in range(50)
]


def make(target, folder, *options):
    return commands.make(target, *options, f"ARGS=--out {folder}", limit=880)


@pytest.mark.timeout(900)
def test_chaos(tmp_path):
    ended = make("chaos", tmp_path / "chaos", "KILLS=1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"^ 1: SIG\w+.* s into \w+", ended.stdout, re.MULTILINE)
    assert "2 runs, " in ended.stdout
    assert ended.stdout.endswith(" 0 differ\n")
    assert not list((tmp_path / "chaos").glob("*/runs/*/.*.*"))


CHECKPOINT = {
    **dict.fromkeys(("global_step", "seen_without", "loops", "pytorch-lightning_version")),
    "ranks": {"task:ner": 1},
    "adapter": {"q.A": torch.tensor([[1.0, 2.0]]), "q.B": torch.tensor([[1.0]])},
    "optimizer_states": [{"state": {0: {"exp_avg": torch.tensor([0.5])}}}],
    "seconds": 1.0,
}
OTHER = {**CHECKPOINT["adapter"], "q.A": torch.tensor([[1.0, 2.0000002]])}


@pytest.mark.parametrize(
    ("file", "text", "same"),
    [
        ("results.jsonl", '{"metric": "seconds", "value": 2}\n{"metric": "rank", "value": 6}\n', True),
        ("results.jsonl", '{"metric": "seconds", "value": 1}\n{"metric": "rank", "value": 7}\n', False),
        ("predictions/ner.jsonl", "more\n", False),
        ("checkpoints/last.ckpt", CHECKPOINT | {"seconds": 2.0}, True),
        ("checkpoints/last.ckpt", CHECKPOINT | {"adapter": OTHER}, False),
        ("checkpoints/last.ckpt", CHECKPOINT | {"optimizer_states": [{"state": {}}]}, False),
        ("checkpoints/.last.ckpt.4321", "half", False),
        ("metrics/version_1/metrics.csv", "1,2\n", True),
    ],
)
def test_chaos_finds_every_difference_but_times(tmp_path, file, text, same):
    one, other = tmp_path / "one", tmp_path / "other"
    run = one / "runs/run"
    write_atomic(run / "results.jsonl", '{"metric": "seconds", "value": 1}\n{"metric": "rank", "value": 6}\n')
    write_atomic(run / "predictions/ner.jsonl", "some\n")
    (run / "checkpoints").mkdir()
    torch.save(CHECKPOINT, run / "checkpoints/last.ckpt")
    shutil.copytree(one, other)
    changed = other / "runs/run" / file
    if isinstance(text, str):
        write_atomic(changed, text)
    else:
        torch.save(text, changed)
    assert chaos.different(one, other) == ([] if same else [changed.relative_to(other)])


def test_soak(tmp_path):
    ended = make("soak", tmp_path / "soak", "MINUTES=0")
    assert "3 runs in " in ended.stdout, ended.stderr
    assert "Traceback" not in ended.stderr
    rows = [json.loads(line) for line in (tmp_path / "soak/soak.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    assert all(row["rss_mib"] > 100 and row["fds"] > 2 and row["threads"] > 0 for row in rows)
    assert all(row["children_rss_mib"] > 1 for row in rows)  # W&B's


@pytest.mark.parametrize(
    ("name", "a_run", "code"),
    [
        ("fds", 0, 0),
        ("rss_mib", 0.3, 0),
        ("rss_mib", 0.8, 1),
        ("children_rss_mib", 1, 1),
        ("fds", 1, 1),
        ("threads", 0.1, 1),
    ],
)
def test_soak_names_what_grows(capsys, name, a_run, code):
    rows = [{**row, name: row[name] + int(10 * n * a_run) / 10} for n, row in enumerate(ROWS)]
    assert soak.report(rows) == code
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].strip() for line in printed if line.endswith("GROWS")] == [name] * code


def test_cluster_tells_a_run_that_did_not_finish_from_one_that_differs(tmp_path):
    alone, swept = tmp_path / "alone", tmp_path / "swept"
    row, seconds = '{"metric": "f1", "value": 50}\n', '{"metric": "seconds", "value": %d}\n'
    write_atomic(alone / "results.jsonl", row + seconds % 9)
    write_atomic(swept / "config.yaml", "seed: 0\n")
    assert cluster.verdict(alone, swept) == "not finished"
    write_atomic(swept / "results.jsonl", seconds % 8 + row)
    assert cluster.verdict(alone, swept) == "rows equal"
    write_atomic(swept / "predictions/ner/test/sw.jsonl", "an answer\n")
    assert cluster.verdict(alone, swept) == "rows differ"


def test_cluster_says_what_it_waited_for(capsys):
    finds = iter([None, "12"])
    assert cluster.wait(1, "a job", lambda: next(finds)) == "12"
    with pytest.raises(SystemExit) as ended:
        cluster.wait(0.01, "the end of a run", lambda: None)
    assert ended.value.code == 3
    assert capsys.readouterr().out.startswith("not finished: waited 0.01 minutes for the end of a run;")
