"""A mixture of everything that a folder holds, and what is said of files that no mixture names."""

import logging

import pytest
from folders import write_dataset
from tiny_runs import config

from flix_lightning.common.errors import UserError
from flix_lightning.data.layout import Layout
from flix_lightning.data.mixture import Mixture, list_all
from flix_lightning.runs.run import Run

ALL = {"name": "all", "train": "all", "evaluate": "all", "report": "all"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("all")
    for task, language, splits in (
        ("ner", "sw", ("train", "validation", "test")),
        ("ner", "yo", ("train", "test")),
        ("ner", "zu", ("test",)),
        ("translation", "sw", ("train",)),
        ("qa_in_lang", "bn", ("validation",)),
        ("semantic_parsing", "sw", ("train", "validation", "test")),
    ):
        write_dataset(root, task, language, 2, splits)
    write_dataset(root, "nre", "sw", 2)
    (root / "notes").mkdir()
    return root


def pairs(datasets):
    return {(one.task, one.language): one.seen for one in datasets}


def test_all_is_what_can_be_trained_and_evaluated(folder, caplog):
    lists = list_all(ALL, Layout(folder))
    resolved = Mixture.resolve({**ALL, **lists, "ranks": {"task": 4}}, Layout(folder))
    assert {*pairs(resolved.train)} == {
        ("ner", "sw"),
        ("ner", "yo"),
        ("translation", "sw"),
        ("semantic_parsing", "sw"),
    }
    assert pairs(resolved.evaluate) == {
        ("ner", "sw"): "seen",
        ("ner", "zu"): "unseen_language",
        ("semantic_parsing", "sw"): "seen",
    }
    assert resolved.report == ["ner", "semantic_parsing"]
    unused, strange = (record.getMessage() for record in caplog.records)
    assert "2 files" in unused
    assert unused.endswith("not used: qa_in_lang/validation (bn); ner/test (yo)")
    assert "no task's are not used: nre;" in strange


def test_one_list_may_be_ones_own(folder):
    own = {**ALL, "train": [{"task": "ner", "languages": ["sw"]}]}
    lists = list_all(own, Layout(folder))
    assert lists.keys() == {"evaluate", "report"}
    resolved = Mixture.resolve({**own, **lists, "ranks": {"task": 4}}, Layout(folder))
    assert pairs(resolved.evaluate) == {
        ("ner", "sw"): "seen",
        ("ner", "yo"): "unseen_language",
        ("ner", "zu"): "unseen_language",
        ("semantic_parsing", "sw"): "unseen_task",
    }


def test_a_runs_config_has_the_lists(tiny, folder):
    without = [one for one in tiny if not one.startswith("mixture.")]
    run = Run.resolve(config([*without, "mixture=all", f"data.root={folder}"]))
    assert run.mixture.name == "all"
    assert run.cfg.mixture.report == ["ner", "semantic_parsing"]
    assert run.cfg.mixture.evaluate[0] == {"task": "ner", "languages": ["sw", "zu"]}
    assert Mixture.resolve(run.cfg.mixture, None).evaluate == run.mixture.evaluate  # where the data is gone


@pytest.mark.parametrize("allow", [True, False])
def test_missing_files_and_files_that_are_not_named(folder, allow, caplog):
    entries = [{"task": "ner", "languages": ["sw", "ha"]}]
    mine = {"name": "mine", "ranks": {"task": 4}, "report": ["ner"], "train": entries, "evaluate": entries}
    if not allow:
        with pytest.raises(UserError, match="mixture=all to take what there is"):
            Mixture.resolve(mine, Layout(folder))
        return
    Mixture.resolve(mine, Layout(folder), allow_missing=True)
    missing, unused, _ = (one.getMessage() for one in caplog.records if one.levelno == logging.WARNING)
    assert "lacks: ner/train (ha); ner/test (ha)" in missing
    assert "semantic_parsing/validation (sw)" in unused
    assert "ner/test (yo zu)" in unused
    assert "ner/train (sw" not in unused
