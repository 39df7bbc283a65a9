"""The run folder of an earlier version (commit 27523ef) still gives the same scores, exports and tables."""

import shutil
from hashlib import sha256
from pathlib import Path

import pytest
from folders import write_split
from omegaconf import OmegaConf
from safetensors.torch import load_file

import commands
from flix_lightning.cldr import benchmark
from flix_lightning.common.settings import plain
from flix_lightning.reports.tables import appendix
from flix_lightning.runs import rows
from flix_lightning.runs.run import Run
from flix_lightning.runs.settings import make_value

OLD = Path(__file__).parent / "old_run"
SCORES = {
    ("ner", "span_f1"): 14.537444933920705,
    ("semantic_parsing", "exact_match"): 22.0,
    ("qa_in_lang", "qa_f1"): 30.666666666666664,
}


@pytest.fixture
def old(tmp_path):
    """A copy of the folder under another name: its id stands in its rows."""
    shutil.copytree(OLD, tmp_path / "old")
    checkpoints = tmp_path / "old/checkpoints"
    shutil.copy(
        checkpoints / "best-ner.ckpt", checkpoints / "last.ckpt"
    )  # it must be there, and nothing takes it
    return tmp_path / "old"


def test_it_is_exported_as_before(old, tmp_path):
    commands.run(tmp_path, "export.py", f"run={old}", "features=[task:ner,language:sw]", "out=adapter")
    weights = load_file(tmp_path / "adapter/adapter_model.safetensors")
    digest = sha256(b"".join(name.encode() + weights[name].numpy().tobytes() for name in sorted(weights)))
    assert digest.hexdigest() == "a05208b248555b834fd3397d0edd29b2a496e829cfdfa15fc68d0acb9db2eb44"


def test_it_is_evaluated_as_before(old, tmp_path):
    for task, _ in SCORES:
        write_split(tmp_path, task, "test", "sw", benchmark.examples("v1", task, "sw", "test", 100, 0))
    commands.run(tmp_path, "evaluate.py", f"run={old}", f"data.root={tmp_path}")
    (found,) = tmp_path.glob("outputs/evaluations/old/*/results.jsonl")
    scores = {(row.task, row.metric): row.value for row in rows.read(found)}
    assert scores == pytest.approx(SCORES, abs=1e-9)
    assert {row.run for row in rows.read(found)} == {"ff2da42cdb"}


def test_it_is_tabulated_as_before(old):
    lines = appendix.table(25, [Run.open(old)]).markdown().splitlines()
    found = {cells[1].strip(): cells[2:4] for line in lines if len(cells := line.split("|")) > 4}
    for task, scores in {
        "SemParse": [33.3, 20.0],
        "QA-InLang": [33.3, 40.0],
        "NER": [8.7, 8.2],
        "average": [25.1, 22.7],
    }.items():
        assert [float(cell) for cell in found[task]] == scores


def test_addresses_of_makers_in_old_configs_are_still_known():
    strategy = make_value(OmegaConf.create({"_target_": "flix_lightning.sharded.ShardedStrategy"}))
    assert type(strategy).__name__ == "ShardedStrategy"
    assert plain(Run.open(OLD).cfg.data.root)["_target_"] == "flix_lightning.cldr.benchmark.ensure"
