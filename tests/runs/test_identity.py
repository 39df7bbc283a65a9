"""Every run of the first version has the identity that it had at commit 27523ef, before there were rooms."""

import json
from pathlib import Path

import pytest
from swept import swept

from flix_lightning.runs.run import resolve_all

BEFORE = json.loads((Path(__file__).parent / "run_ids.json").read_text())

#: What the first version had, whatever is shipped now.
VERSION_1 = (
    *("data=cldr_v1", "model.pretrained=cldr-base", "trainer.max_steps=500", "trainer.batch_size=32"),
    "evaluation.selection=task",
)
EVALUATION_1 = ("evaluation.every=100", "evaluation.validation_cap=10")
SEARCHES_1 = {
    "search_flix": ("evaluation.every=250", "flix=flix", "data.feature_dropout=0.0,0.1,0.3"),
    "search_lora": (
        "evaluation.every=250",
        "optimizer.learning_rate=7e-4,1e-3,1.4e-3,2e-3,2.8e-3,4e-3,5.6e-3,8e-3,1.1e-2",
    ),
}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("identity")


@pytest.mark.parametrize("sweep", BEFORE)
def test_a_run_keeps_its_folder(sweep, output):
    """Otherwise finished runs would be trained again."""
    cfgs = [cfg.copy() for cfg in swept(sweep, *VERSION_1, *SEARCHES_1.get(sweep, EVALUATION_1))]
    for cfg in cfgs:
        cfg.output = str(output)
    runs, _ = resolve_all(cfgs)
    assert {run.name for run in runs} == {*BEFORE[sweep]}
