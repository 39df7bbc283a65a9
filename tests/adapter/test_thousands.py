"""Thousands of features on the built-in base: a kind of the user's own, whose names come with the lines."""

import time
from pathlib import Path

import pytest
import torch
from folders import line_of, write_split
from tiny_runs import checkpoint, do, fact

from flix_lightning.adapter.features import FeatureSpace
from flix_lightning.adapter.projection import inject
from flix_lightning.models import base as models
from flix_lightning.runs.checkpoints import Checkpoint
from flix_lightning.runs.run import Run

SITES = 3000
ENTRIES = "[{task:ner,languages:[sw]}]"


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """A folder whose every training line comes from a site of its own."""
    folder = tmp_path_factory.mktemp("sites")
    for split, count in (("train", SITES), ("validation", 2), ("test", 2)):
        lines = [line_of("ner", f"Kenya {n}", "LOC: Kenya", site=f"site{n}") for n in range(count)]
        write_split(folder, "ner", split, "sw", lines)
    return folder


@pytest.fixture(scope="module")
def done(sites, tmp_path_factory):
    """A run of three steps of 8 examples on it."""
    overrides = [
        "data=xtreme_up",
        f"data.root={sites}",
        "data.max_target_length=8",
        f"mixture.train={ENTRIES}",
        f"mixture.evaluate={ENTRIES}",
        "mixture.report=[ner]",
        "+flix.ranks.site=1",
        "flix.dropout=0",
        "flix.controls=[]",
        "model.targets=default",
        "optimizer.lazy=true",
        "trainer.max_steps=3",
        "trainer.batch_size=8",
        "logger=[csv]",
    ]
    return do(overrides, tmp_path_factory.mktemp("runs"))


def test_a_run_moves_the_rows_of_its_batches_alone(done):
    assert fact(done, "rank") == 4 + 2 + 1
    saved = checkpoint(done)
    assert len(saved["ranks"]) == SITES + 2
    for key, pool in saved["adapter"].items():
        moved = int(pool.any(dim=1).sum()) if key.endswith(".B") else None
        # Rows of the task, the language and of the 3 x 8 lines that were seen; the rest of B is still zero.
        assert moved in (None, 4 + 2 + 24), key


def memory(kind):
    """Bytes of this process that are in memory: `RssAnon` its own, `RssFile` of files."""
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(kind)]
    return int(line.split()[1]) * 1024


def test_only_the_wanted_features_are_read(done):
    """By an adapter of them alone, and by an export."""
    path = done / "checkpoints" / "last.ckpt"
    expected = checkpoint(done)
    wanted = ["language:sw", "site:site7", "task:ner"]
    model = models.load("cldr-base", "main", "float32").model
    adapter = inject(model, FeatureSpace({name: expected["ranks"][name] for name in wanted}), "default")
    whole = sum(pool.nbytes for pool in expected["adapter"].values())
    used = [memory("RssAnon") + memory("RssFile")]
    saved = Checkpoint.read(path)
    adapter.load_features(saved.pools, saved.ranks, wanted)
    used.append(memory("RssAnon") + memory("RssFile"))
    exported = Run.open(done).checkpoint("last").lora(wanted)
    used.append(memory("RssAnon") + memory("RssFile"))
    assert max(used[1] - used[0], used[2] - used[1]) < whole / 10
    space = FeatureSpace(expected["ranks"])
    for key, pool in adapter.state_dict().items():
        name, _, letter = key.rpartition(".")
        assert torch.equal(pool, expected["adapter"][key][space.range_of(wanted)])
        in_order = expected["adapter"][key][sorted(space.range_of(wanted))]
        assert torch.equal(exported[name]["AB".index(letter)], in_order)


def test_looking_a_batchs_rows_up_does_not_take_longer_with_more_features():

    def seconds(count):
        space = FeatureSpace({"task:ner": 4, **{f"site:{n}": 1 for n in range(count)}})
        batch = [("task:ner", f"site:{n}") for n in range(8)]
        best = float("inf")
        for _ in range(20):
            began = time.process_time()
            for _ in range(20):
                space.rows(batch)
            best = min(best, time.process_time() - began)
        return best

    assert seconds(20_000) < 3 * seconds(20)
