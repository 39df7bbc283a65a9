import shutil

import pytest
import torch
from tiny_runs import checkpoint, config, do, predictions

from flix_lightning.common.errors import UserError
from flix_lightning.runs.run import Run

#: The tiny run again, but of a language that it never saw.
NEW = [
    "mixture.name=new",
    "mixture.train=[{task:ner,languages:[zu]}]",
    "mixture.evaluate=[{task:ner,languages:[zu,sw,yo]}]",
    "mixture.report=[ner]",
    "trainer.max_steps=3",
    "flix.controls=[]",
]


@pytest.fixture(scope="module")
def earlier(tiny, tmp_path_factory):
    """A run of two tasks and three languages."""
    return do([*tiny, "flix.controls=[]"], tmp_path_factory.mktemp("earlier"))


def rows_of(checkpoint, feature):
    """Every pool's rows of one feature, found by hand."""
    ranks = checkpoint["ranks"]
    first = sum(list(ranks.values())[: list(ranks).index(feature)])
    return {key: pool[first : first + ranks[feature]] for key, pool in checkpoint["adapter"].items()}


@pytest.mark.parametrize("lazy", ["false", "true"])
def test_a_language_is_added_and_all_else_stays_as_it_is(earlier, tiny, tmp_path, lazy, caplog):
    start = [f"start.run={earlier}", "start.checkpoint=best-ner"]
    with caplog.at_level("INFO"):
        folder = do([*tiny, *NEW, *start, f"optimizer.lazy={lazy}"], tmp_path)
    before, after = checkpoint(earlier, "best-ner"), checkpoint(folder)
    assert after["ranks"] == {**before["ranks"], "language:zu": 2}
    for feature in before["ranks"]:
        torch.testing.assert_close(rows_of(after, feature), rows_of(before, feature), rtol=0, atol=0)
    for key, pool in rows_of(after, "language:zu").items():
        assert pool.abs().max() > 1e-3, key  # B starts at zero
    # Of two languages that it had, nothing changes; each was tested with this checkpoint.
    old, new = predictions(earlier), predictions(folder)
    for file in ("predictions/test-all/ner/sw.jsonl", "predictions/test-all/ner/yo.jsonl"):
        assert new[file] == old[file]
    widths = sum(pool.shape[1] for pool in after["adapter"].values())
    assert f"{2 * widths:,} in all (rank 2); frozen features: 5" in caplog.text


def test_all_may_be_trained_on(earlier, tiny, tmp_path):
    start = [f"start.run={earlier}", "start.train=all", "flix.dropout=0"]
    folder = do([*tiny, *NEW, *start, "optimizer.learning_rate=1e-4", "trainer.max_steps=2"], tmp_path)
    before, after = checkpoint(earlier), checkpoint(folder)
    for feature in before["ranks"]:
        had, has = rows_of(before, feature), rows_of(after, feature)
        torch.testing.assert_close(has, had, rtol=0, atol=1e-3)  # two small steps from where it was
        moved = not all(torch.equal(has[key], had[key]) for key in had)
        assert moved == (feature == "task:ner")


def test_what_a_run_starts_from_decides_its_result_wherever_it_lies(earlier, tiny, tmp_path):
    shutil.copytree(earlier, tmp_path / "moved")
    changes = [
        [],
        [f"start.run={earlier}"],
        [f"start.run={earlier}", "start.train=all"],
        [f"start.run={earlier}", "start.checkpoint=best-ner"],
    ]
    ids = [Run.resolve(config([*tiny, *NEW, *change])).id for change in changes]
    assert len(set(ids)) == len(ids)
    assert Run.resolve(config([*tiny, *NEW, f"start.run={tmp_path / 'moved'}"])).id == ids[1]


@pytest.mark.parametrize(
    ("overrides", "said"),
    {
        "no run": (["start.run=nowhere"], "start.run=nowhere: no run"),
        "no checkpoint": (["start.checkpoint=best-qa"], "no checkpoint best-qa; .* best-ner, .*last"),
        "no choice": (["start.train=old"], "start.train is 'old'; one of new, all is needed"),
        "other ranks": (["flix.ranks.task=3"], "has task:ner at rank 4, and flix.ranks gives it 3"),
        "nothing new": (["mixture.train=[{task:ner,languages:[sw]}]"], "every feature .* start.train=all"),
        "other projections": (
            ["model.targets=default"],
            r"start.run=.*: this checkpoint does not fit .* unexpected pools .*SelfAttention\.k\.A",
        ),
    }.values(),
    ids=lambda value: None,
)
def test_what_does_not_fit_is_refused(earlier, tiny, tmp_path, overrides, said):
    with pytest.raises(UserError, match=said) as error:
        do([*tiny, *NEW, f"start.run={earlier}", *overrides], tmp_path)
    assert "\n" not in str(error.value)


def test_another_base_is_refused(earlier, tiny, tmp_path, decoder_base):
    overrides = [*tiny, *NEW, f"start.run={earlier}", f"model.pretrained={decoder_base}"]
    with pytest.raises(
        UserError, match=rf"start\.run=.* on model\.pretrained=.*, this run on {decoder_base}$"
    ):
        do(overrides, tmp_path)
    assert not list(tmp_path.iterdir())
