"""Mistakes in the real commands: each ends in one line with the culprit and the cure, and spoils nothing."""

import errno
import os
import shutil
from functools import partial

import pytest

import commands
from archives import of_folder
from flix_lightning.plan import plan
from tiny_runs import config, do

#: Overrides of a run, and what its line must say.
MISTAKES = {
    # data
    "unknown language": (["mixture.train=[{task:ner,languages:[sw,swx]}]"], ["swx"]),
    "unknown task": (["mixture.train=[{task:nre,languages:[sw]}]"], ["nre", "ner"]),
    "missing file": (
        ["mixture.train=[{task:ner,languages:[sw,am]}]"],
        ["ner/train (am)", "data.allow_missing=true"],
    ),
    "empty training set": (["mixture.train=[]"], ["mixture.train is empty"]),
    "nothing to select by": (
        ["mixture.report=[translation]"],
        ["report (translation)", "add one to evaluate"],
    ),
    "key of a mixture": (["+mixture.trian=[]"], ["mixture.trian", "'train'"]),
    "no root": (["data.root=???"], ["data.root has no value", "data.root=VALUE"]),
    "a benchmark of no examples": (
        [
            "data.root={_target_:flix_lightning.cldr.benchmark.ensure,root:x,train:0,validation:1,test:1,seed:0}"
        ],
        ["error: data.root.train=0", "whole number from 1"],
    ),
    "root that is not there": (["data.root=nowhere"], ["nowhere", "data.root is a folder"]),
    # method
    "rank below 0": (["flix.ranks.task=-1"], ["ranks.task", "-1", ">= 0"]),
    "rank of no number": (["flix.ranks.task=most"], ["ranks.task", "most", "max_active"]),
    "ranks all 0": (["flix.ranks.task=0", "flix.ranks.language=0"], ["all 0", "above 0"]),
    "rank of an unknown kind": (["+flix.ranks.family=2"], ["family", "language"]),
    "dropout of 1": (["flix.dropout=1.0"], ["dropout", "1.0", "[0, 1)"]),
    "dropout below 0": (["flix.dropout=-0.1"], ["dropout", "-0.1", "[0, 1)"]),
    "dropout of no number": (["flix.dropout=x"], ["dropout", "'x'", "[0, 1)"]),
    "dropout of a misspelt kind": (["flix.dropout={lang:0.3}"], ["flix.dropout", "'lang'", "task, language"]),
    "control of a misspelt kind": (
        ["flix.controls=[[],[lang]]"],
        ["flix.controls", "'lang'", "task, language"],
    ),
    "controls that are no lists": (["flix.controls=[task]"], ["flix.controls", "[[task]]"]),
    # model
    "targets that match nothing": (["model.targets=no.such"], ["no.such", "SelfAttention.q"]),
    "targets that are no pattern": (["model.targets='(q'"], ["(q", "regular expression"]),
    "no such folder of a model": (["model.pretrained=./nowhere"], ["./nowhere", "no such folder"]),
    "a package that is not installed": (
        ["model.pretrained={_target_:flix_lightning.packaged.ensure,package:no_gguf,licence:x,root:x}"],
        ["error: the model is carried by a package", "no_gguf", "pip install"],
    ),
    "no such vocabulary": (["model.vocabulary=some"], ["model.vocabulary is 'some'", "all, data"]),
    "a vocabulary that cannot be cut": (
        ["model.vocabulary=data"],
        ["model.vocabulary=data", "without a"],
    ),
    "no such type": (["model.dtype=float33"], ["model.dtype", "float33", "bfloat16"]),
    # training
    "batches": (["trainer.batch_size=10"], ["batch_size 10", "micro_batch_size 4"]),
    "no steps": (["trainer.max_steps=0"], ["trainer.max_steps is 0", "from 1"]),
    "half a step": (["evaluation.every=2.5"], ["evaluation.every is 2.5", "whole number"]),
    "no yes or no": (["evaluation.test=maybe"], ["evaluation.test is 'maybe'", "true or false"]),
    "no validation": (["evaluation.validation_cap=0"], ["evaluation.validation_cap is 0", "from 1"]),
    "a seed that is no number": (["seed=x"], ["seed is 'x'", "whole number"]),
    "learning rate": (["optimizer.learning_rate=0"], ["optimizer.learning_rate is 0", "above 0"]),
    "clipping": (["trainer.gradient_clip_val=-1"], ["trainer.gradient_clip_val is -1", "above 0"]),
    "warm-up": (["optimizer.warmup_steps=-1"], ["optimizer.warmup_steps is -1", "from 0"]),
    "precision": (["trainer.precision=7-bit"], ["trainer", "7-bit", "bf16-mixed"]),
    "accelerator": (["trainer.accelerator=abacus"], ["trainer", "abacus", "cpu"]),
    "strategy": (["trainer.strategy=luck"], ["trainer", "luck", "ddp"]),
    "devices": (["trainer.devices=0"], ["trainer", "0"]),
    "recomputation": (
        ["trainer.activation_checkpointing=perhaps"],
        ["trainer.activation_checkpointing is 'perhaps'", "true or false"],
    ),
    "progress": (["trainer.progress=dots"], ["trainer.progress", "dots", "bar, lines"]),
    "selection": (["evaluation.selection=best"], ["evaluation.selection", "best", "task, average"]),
    "mode of W&B": (["logger=[wandb]", "logger.wandb.mode=of"], ["wandb.mode", "'of'", "offline, online"]),
    # Hydra
    "typo in a key": (["trainer.max_step=3"], ["trainer.max_step:", "did you mean trainer.max_steps?"]),
    "unknown choice": (["flix=flixx"], ["flix/flixx", "compute_matched"]),
    "unknown group": (["flox=flix"], ["flox:", "did you mean flix?"]),
    "no override": (["flix.dropout"], ["flix.dropout"]),
    "unknown sweep": (["+sweeps=table99"], ["table99", "table1"]),
}
NUMBERS = {name: number for number, name in enumerate(MISTAKES, start=1000)}


@pytest.fixture(scope="module")
def earlier(tiny, tmp_path_factory):
    """A folder of outputs with a finished run; the files of that run."""
    folder = tmp_path_factory.mktemp("bad")
    run = do([*tiny, "trainer.max_steps=1"], folder / "outputs")
    return folder, {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def refused(earlier, *arguments, script="train.py", before=None):
    """Run a command that must end in one line; return it."""
    folder, files = earlier
    ended = commands.run(folder, script, *arguments, code=1, before=before)
    lines = [
        line for line in ended.err.splitlines() if line.strip() and "%|" not in line
    ]  # but progress bars
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("error: ")
    assert {path: path.read_bytes() for path in files} == files
    return lines[0]


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(earlier, tiny, name):
    overrides, expected = MISTAKES[name]
    line = refused(earlier, *tiny, f"seed={NUMBERS[name]}", *overrides)
    for part in expected:
        assert part in line
    assert len(line) < 700


def change(path, text):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], text, *lines[2:]]) + "\n")


BROKEN = {
    "empty": (lambda path: path.write_text(""), ["sw.jsonl", "empty"]),
    "no JSON": (lambda path: change(path, "{'text': 1}"), ["sw.jsonl:2", "not JSON"]),
    "no object": (lambda path: change(path, '["a"]'), ["sw.jsonl:2", "object"]),
    "key": (lambda path: change(path, '{"text": "a"}'), ["sw.jsonl:2", "lacks the key 'target'"]),
}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_is_named_before_anything_is_trained(earlier, tiny, data, tmp_path, how, split):
    shutil.copytree(data, tmp_path / "data")
    spoil, expected = BROKEN[how]
    spoil(tmp_path / "data/ner" / split / "sw.jsonl")
    overrides = [*tiny, f"data.root={tmp_path / 'data'}"]
    line = refused(earlier, *overrides)
    for part in [*expected, f"ner/{split}"]:
        assert part in line
    folder = plan(config([*overrides, f"output={earlier[0] / 'outputs'}"])).folder
    assert not folder.checkpoints.exists()


def cut_off(path, data):
    archive = of_folder(path.with_suffix(".tgz"), data, "top")
    archive.write_bytes(archive.read_bytes()[:-100])
    return archive


def wrongly_laid(path, data):
    shutil.copytree(data / "ner", path / "sw")
    return path


SOURCES = {
    "an archive that is cut off": (cut_off, ["data.tgz: cut off or damaged", "get the archive again"]),
    "a folder of another layout": (wrongly_laid, ["data: no <task>/<train|validation|test>/", "holds sw"]),
}


@pytest.mark.parametrize("how", SOURCES)
def test_a_bad_source(earlier, tiny, data, tmp_path, how):
    make, expected = SOURCES[how]
    line = refused(earlier, *tiny, f"data.root={make(tmp_path / 'data', data)}")
    for part in expected:
        assert part in line
    assert not (earlier[0] / "outputs/data").exists() or not list((earlier[0] / "outputs/data").iterdir())


def test_a_corrupt_checkpoint(earlier, tiny):
    overrides = [*tiny, "seed=77"]
    folder = plan(config([*overrides, f"output={earlier[0] / 'outputs'}"])).folder
    folder.checkpoints.mkdir(parents=True)
    (folder.checkpoints / "last.ckpt").write_bytes(b"PK\x03\x04 and no more")
    line = refused(earlier, *overrides)
    assert "checkpoints/last.ckpt: no readable checkpoint" in line
    assert "delete" in line
    assert not folder.finished


def fill_disk(name):
    """As on a disk with no room left for a file of that name."""
    replace = os.replace

    def full(source, target):
        if os.path.basename(target) == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    os.replace = full


@pytest.mark.parametrize("name", ["config.yaml", "yo.jsonl", "last.ckpt", "results.jsonl"])
def test_a_full_disk(earlier, tiny, name):
    """And once there is room again, the run goes on."""
    overrides = [*tiny, f"seed={len(name)}", "trainer.max_steps=2"]
    line = refused(earlier, *overrides, before=partial(fill_disk, name))
    assert f"/{name}: No space left on device" in line
    folder = plan(config([*overrides, f"output={earlier[0] / 'outputs'}"])).folder
    assert not folder.finished
    assert not list(folder.path.rglob(f".{name}.*"))
    if name == "results.jsonl":
        commands.run(earlier[0], "train.py", *overrides)
        assert folder.finished


def test_a_model_that_no_hub_gives(earlier, tiny):
    line = refused(earlier, *tiny, "model.pretrained=nobody/nothing", before=go_offline)
    assert "model.pretrained=nobody/nothing" in line
    assert "a folder" in line


def go_offline():
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_OFFLINE = True


def test_a_multirun_does_its_other_runs(earlier, tiny):
    folder, _ = earlier
    line = refused(earlier, "-m", *tiny, "trainer.max_steps=1", "seed=5", "flix.dropout=0.1,1.0,0.2")
    assert "1.0" in line
    for rate in (0.1, 0.2):
        overrides = [
            *tiny,
            "trainer.max_steps=1",
            "seed=5",
            f"flix.dropout={rate}",
            f"output={folder}/outputs",
        ]
        assert plan(config(overrides)).folder.finished


def test_a_multirun_on_several_devices(earlier, tiny):
    line = refused(earlier, "-m", *tiny, "trainer.devices=2", "seed=6")
    assert "trainer.devices is 2" in line
    assert "without -m" in line


@pytest.mark.parametrize("override", ["flix.dropout=2", "flix.dropuot=0.2"])
def test_a_mistake_in_a_report(earlier, tiny, override):
    assert "dropout" in refused(earlier, *tiny, override, script="report.py")


def test_a_broken_result_is_named_by_its_line(tiny, tmp_path):
    run = do([*tiny, "trainer.max_steps=1"], tmp_path / "outputs")
    results = run / "results.jsonl"
    results.write_text(results.read_text().replace('"n": ', '"n": -', 1))
    line = refused((tmp_path, {results: results.read_bytes()}), *tiny, "trainer.max_steps=1")
    assert "results.jsonl:1: results row: n is -" in line
