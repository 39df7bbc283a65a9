"""Every run of the shipped sweeps has the identity that it had at commit 27523ef, before there were rooms."""

import json
from pathlib import Path

import pytest
from swept import swept

from flix_lightning.runs.run import resolve_all

BEFORE = json.loads((Path(__file__).parent / "run_ids.json").read_text())


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("identity")


@pytest.mark.parametrize("sweep", BEFORE)
def test_a_run_keeps_its_folder(sweep, output):
    """On the built-in benchmark and base; otherwise finished runs would be trained again."""
    cfgs = [cfg.copy() for cfg in swept(sweep)]
    for cfg in cfgs:
        cfg.output = str(output)
    runs, _ = resolve_all(cfgs)
    assert {run.name for run in runs} == {*BEFORE[sweep]}
