"""Mistakes in the real commands: each ends in one line with the culprit and the cure, and spoils nothing."""

import errno
import json
import os
import re
import shutil
from functools import partial

import pytest
import torch
from archives import of_folder
from omegaconf import OmegaConf
from tiny_runs import config, do

import commands
from flix_lightning.common import cli
from flix_lightning.inference.export import export
from flix_lightning.runs.run import Run

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
    "root of no text": (["data.root=null"], ["data.root is null", "a text, or a call"]),
    "root of a list": (["data.root=[a]"], ["data.root is ['a']", "a text, or a call"]),
    "root of another's call": (
        ["data.root={_target_:os.getcwd}"],
        ["_target_ is 'os.getcwd'", "cldr.benchmark"],
    ),
    "call that lacks values": (
        ["data.root={_target_:flix_lightning.cldr.benchmark.ensure}"],
        ["data.root", "missing 5 required", "'train'"],
    ),
    "yes for a number": (
        [
            "data.root={_target_:flix_lightning.cldr.benchmark.ensure,root:x,train:true,validation:1,test:1,seed:0}"
        ],
        ["data.root.train=True", "whole number from 1"],
    ),
    "allow what is missing": (
        ["data.allow_missing=perhaps"],
        ["data.allow_missing is 'perhaps'", "true or false"],
    ),
    "no length": (["data.max_input_length=0"], ["data.max_input_length is 0", "from 1"]),
    "yes for a length": (["data.max_target_length=true"], ["data.max_target_length is True", "whole number"]),
    "a length without end": (
        ["data.max_target_length=99999999999"],
        ["max_target_length is 99999999999", "1,048,576"],
    ),
    "name that leads out": (["mixture.name=../../x"], ["mixture.name is '../../x'", "letters, digits"]),
    "name of no text": (["mixture.name=5"], ["mixture.name is 5", "a name"]),
    "name too long for W&B": ([f"mixture.name={'a' * 65}"], ["mixture.name", "at most 64"]),
    "training set of no list": (["mixture.train=5"], ["mixture.train is 5", "list of entries"]),
    "training set of a word": (["mixture.train=ner"], ["mixture.train is 'ner'", "list of entries"]),
    "entry of no mapping": (["mixture.train=[ner]"], ["mixture.train[0]: 'ner'", "`task`"]),
    "task of a list": (
        ["mixture.train=[{task:[ner],languages:[sw]}]"],
        ["unknown task ['ner']", "tasks are"],
    ),
    "languages of a word": (
        ["mixture.train=[{task:ner,languages:sw}]"],
        ["train[0].languages: 'sw'", "list"],
    ),
    "unquoted no": (
        ["mixture.train=[{task:ner,languages:[false]}]"],
        ["train[0].languages", '"no" in quotes'],
    ),
    "path for a language": (
        ["mixture.train=[{task:ner,languages:[../x]}]"],
        ["unknown language code '../x'"],
    ),
    "dataset twice": (["mixture.train=[{task:ner,languages:[sw,sw]}]"], ["more than once: ner/sw"]),
    "kind of no text": (
        ["mixture.train=[{task:ner,languages:[sw],1:x}]"],
        ["train[0]: 1", "without a colon"],
    ),
    "report of no list": (["mixture.report=ner"], ["mixture.report is 'ner'", "list of tasks"]),
    "sampling of no mapping": (["mixture.sampling=5"], ["mixture.sampling is 5", "a mapping"]),
    "temperature": (["mixture.sampling.temperature=nan"], ["sampling.temperature is nan", "above 0"]),
    "cap": (["mixture.sampling.cap=0.5"], ["sampling.cap is 0.5", "whole number from 1"]),
    "ranks of no mapping": (["flix=compute_matched", "mixture.ranks=5"], ["mixture.ranks is 5", "a mapping"]),
    # method
    "a method without a name": (["flix.name="], ["flix.name is ''", "a name"]),
    "method that leads out": (["flix.name=../../x"], ["flix.name is '../../x'", "a name"]),
    "no ranks": (["flix.ranks=null"], ["flix.ranks is null", "a mapping"]),
    "rank of half": (["flix.ranks.task=1.5"], ["ranks.task", "1.5", "whole number >= 0"]),
    "rank of a list": (["flix.ranks.task=[1]"], ["ranks.task", "[1]", "whole number >= 0"]),
    "rank without end": (["flix.ranks.task=99999999999"], ["ranks.task", "99999999999", "65,536"]),
    "rank of nothing trained": (
        ["flix.ranks.task={nre:2,default:1}"],
        ["ranks.task.nre", "semantic_parsing, ner"],
    ),
    "rank for some": (["flix.ranks.task={ner:2}"], ["ranks.task", "semantic_parsing", "default"]),
    "controls twice": (["flix.controls=[[task],[task]]"], ["flix.controls", "['task'] more than once"]),
    "controls within controls": (["flix.controls=[[[task]]]"], ["flix.controls", "[[task]]"]),
    "dropout of no value": (["flix.dropout=null"], ["dropout", "None", "[0, 1)"]),
    "dropout nan": (["flix.dropout=nan"], ["dropout", "nan", "[0, 1)"]),
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
        ["model.pretrained={_target_:flix_lightning.models.gguf.ensure,package:no_gguf,licence:x,root:x}"],
        ["error: the model is carried by a package", "no_gguf", "pip install"],
    ),
    "no such vocabulary": (["model.vocabulary=some"], ["model.vocabulary is 'some'", "all, data"]),
    "a vocabulary that cannot be cut": (
        ["model.vocabulary=data"],
        ["model.vocabulary=data", "without a"],
    ),
    "no such type": (["model.dtype=float33"], ["model.dtype", "float33", "bfloat16"]),
    "no model": (["model.pretrained=null"], ["model.pretrained is null", "a text"]),
    "an empty name of a model": (["model.pretrained="], ["model.pretrained is ''", "a text"]),
    "another's call for a model": (
        ["model.pretrained={_target_:os.getcwd}"],
        ["_target_ is 'os.getcwd'", "gguf"],
    ),
    "a package of no weights": (
        [
            "model.pretrained={_target_:flix_lightning.models.gguf.ensure,package:antigravity,licence:x,root:x}"
        ],
        ["package='antigravity'", "_gguf"],
    ),
    "address for a model": (
        ["model.pretrained=https://a.b/c"],
        ["model.pretrained=https://a.b/c", "no such folder"],
    ),
    "targets of a list": (["model.targets=[q,v]"], ["model.targets is ['q', 'v']", "a text"]),
    "type of whole numbers": (["model.dtype=int8"], ["model.dtype is 'int8'", "bfloat16"]),
    "no type": (["model.dtype=null"], ["model.dtype is null", "a text"]),
    "revision": (["model.revision=null"], ["model.revision is null", "a text"]),
    # training
    "no seed": (["seed=null"], ["seed is null", "whole number"]),
    "a seed below 0": (["seed=-1"], ["seed is -1", "from 0"]),
    "a seed without end": (["seed=99999999999999999999"], ["seed is 9999", "1,000,000,000"]),
    "no place for outputs": (["output="], ["output is ''", "a text"]),
    "tables of no list": (["tables=5"], ["tables is 5", "a list of names"]),
    "no evaluation": (["evaluation=null"], ["evaluation is null", "a mapping"]),
    "learning rate nan": (["optimizer.learning_rate=nan"], ["optimizer.learning_rate is nan", "above 0"]),
    "learning rate inf": (["optimizer.learning_rate=inf"], ["optimizer.learning_rate is inf", "above 0"]),
    "learning rate far too high": (
        ["optimizer.learning_rate=1e30"],
        ["loss of step 2 is", "lower optimizer.learning_rate"],
    ),
    "threads": (["trainer.threads=99999999999"], ["trainer.threads is 99999999999", "1,024"]),
    "steps as 1e3": (["trainer.max_steps=1e3"], ["trainer.max_steps is 1000.0", "whole number"]),
    "key that nothing reads": (["+optimizer.weight_decay=0.1"], ["optimizer.weight_decay: no such key"]),
    "key that is nearly one": (
        ["+trainer.max_step=5"],
        ["trainer.max_step: no such key", "'trainer.max_steps'"],
    ),
    "top key that nothing reads": (["++sede=5"], ["sede: no such key", "'seed'"]),
    "logger of nothing": (["logger.csv=null"], ["logger.csv is None", "_target_"]),
    "project of W&B": (
        ["logger=[wandb]", "logger.wandb.project=5"],
        ["W&B does not start", "project", "valid string"],
    ),
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
    "typo in a key": (["trainer.max_step=3"], ["trainer.max_step:", "did you mean 'trainer.max_steps'?"]),
    "no group": (["flix=null"], ["flix=null", "must be a string or a list"]),
    "brackets": (["flix.ranks.language=[1"], ["flix.ranks.language=[1: ", "KEY=VALUE", "quotes"]),
    "no name of a key": (["=5"], ["=5"]),
    "list for a mapping": (["flix.ranks=[task]"], ["flix.ranks=[task]", "Cannot merge"]),
    "interpolation of nothing": (["seed=${nothing}"], ["'nothing' not found", "seed"]),
    "added twice": (["+trainer.threads=5"], ["trainer.threads", "++trainer.threads=5"]),
    "step of a range": (["seed=range(0,1,0)"], ["seed=range(0,1,0)", "zero"]),
    "unknown choice": (["flix=flixx"], ["flix/flixx", "compute_matched"]),
    "unknown group": (["flox=flix"], ["flox:", "did you mean 'flix'?"]),
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


def told(earlier, capsys, *overrides):
    """As `refused`, in this process and so in less than a second."""
    folder, files = earlier
    with pytest.raises(cli.REPORTED_ERRORS) as caught:
        do(overrides, folder / "outputs")
    capsys.readouterr()
    cli.print_error(caught.value)
    (line,) = capsys.readouterr().err.splitlines()
    assert {path: path.read_bytes() for path in files} == files
    return line


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(earlier, tiny, capsys, name):
    overrides, expected = MISTAKES[name]
    line = told(earlier, capsys, *tiny, f"seed={NUMBERS[name]}", *overrides)
    for part in expected:
        assert part in line
    assert len(line) < 900


#: One of each kind by the command itself.
BY_COMMAND = [
    "unknown language",
    "root of another's call",
    "precision",
    "no group",
    "brackets",
    "no override",
]


@pytest.mark.parametrize("name", BY_COMMAND)
def test_a_mistake_by_the_command(earlier, tiny, name):
    overrides, expected = MISTAKES[name]
    line = refused(earlier, *tiny, f"seed={NUMBERS[name]}", *overrides)
    for part in expected:
        assert part in line


def test_a_traceback_is_for_those_who_ask(earlier, tiny):
    ended = commands.run(earlier[0], "train.py", *tiny, "seed=-1", code=1, before=ask)
    assert "Traceback" in ended.err
    assert ended.err.strip().endswith(
        "UserError: seed is -1; a whole number from 0 to 1,000,000,000 is needed"
    )


def ask():
    cli.TRACEBACK = True


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
    folder = Run.resolve(config([*overrides, f"output={earlier[0] / 'outputs'}"]))
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
    folder = Run.resolve(config([*overrides, f"output={earlier[0] / 'outputs'}"]))
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
    folder = Run.resolve(config([*overrides, f"output={earlier[0] / 'outputs'}"]))
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
        assert Run.resolve(config(overrides)).finished


def test_a_multirun_on_several_devices(earlier, tiny):
    line = refused(earlier, "-m", *tiny, "trainer.devices=2", "seed=6")
    assert "trainer.devices is 2" in line
    assert "without -m" in line


@pytest.mark.parametrize("override", ["flix.dropout=2", "flix.dropuot=0.2"])
def test_a_mistake_in_a_report(earlier, tiny, override):
    assert "dropout" in refused(earlier, *tiny, override, script="report.py")


@pytest.mark.parametrize("keep", [0, -20])
def test_results_that_are_cut_off(tiny, tmp_path, capsys, keep):
    run = do([*tiny, "trainer.max_steps=1"], tmp_path / "outputs")
    results = run / "results.jsonl"
    results.write_text(results.read_text()[:keep])
    line = told((tmp_path, {results: results.read_bytes()}), capsys, *tiny, "trainer.max_steps=1")
    assert "results.jsonl: empty, or cut off in its last line; delete the file" in line


def test_a_broken_result_is_named_by_its_line(tiny, tmp_path):
    run = do([*tiny, "trainer.max_steps=1"], tmp_path / "outputs")
    results = run / "results.jsonl"
    results.write_text(results.read_text().replace('"n": ', '"n": -', 1))
    line = refused((tmp_path, {results: results.read_bytes()}), *tiny, "trainer.max_steps=1")
    assert "results.jsonl:1: results row: n is -" in line


# -- checkpoints


def without(*keys):
    def spoil(state):
        for key in keys:
            del state[key]

    return spoil


def another(state, key, value):
    state[key] = value


def first_pool(state):
    return next(iter(state["adapter"]))


#: What is done to a checkpoint that training would go on from, and what is said of it.
CHECKPOINTS = {
    "cut off": (lambda path, state: path.write_bytes(path.read_bytes()[:999]), ["no readable checkpoint"]),
    "empty": (lambda path, state: path.write_bytes(b""), ["no readable checkpoint"]),
    "a text": (lambda path, state: path.write_text("weights"), ["no readable checkpoint"]),
    "a folder": (
        lambda path, state: (path.unlink(), path.mkdir()),
        ["no readable checkpoint", "IsADirectoryError"],
    ),
    "a list": (lambda path, state: [1], ["no checkpoint of FLix but a list"]),
    "weights alone": (
        lambda path, state: without("optimizer_states")(state),
        ["lacks optimizer_states"],
    ),
    "no ranks": (lambda path, state: without("ranks")(state), ["lacks ranks"]),
    "ranks of no mapping": (lambda path, state: another(state, "ranks", [4]), ["ranks or pools", "mapping"]),
    "ranks of another sum": (
        lambda path, state: another(state["ranks"], "task:ner", 5),
        ["no pool of 15 rows"],
    ),
    "a rank of half": (lambda path, state: another(state["ranks"], "task:ner", 0.5), ["task:ner is 0.5"]),
    "another feature": (
        lambda path, state: another(state, "ranks", {"task:x": 14}),
        ["no features task:", "unexpected features task:x"],
    ),
    "half a pair": (lambda path, state: state["adapter"].pop(first_pool(state)), ["one of a pair of pools"]),
    "one pair more": (
        lambda path, state: state["adapter"].update({"x.A": torch.zeros(14, 2), "x.B": torch.zeros(14, 2)}),
        ["unexpected pools x.A, x.B"],
    ),
    "another base": (
        lambda path, state: another(state["adapter"], first_pool(state), torch.zeros(14, 3)),
        ["another shape", "[14, 3] instead of [14, 32]"],
    ),
    "nan": (
        lambda path, state: state["adapter"][first_pool(state)].fill_(float("nan")),
        ["not finite"],
    ),
}


@pytest.fixture(scope="module")
def begun(earlier, tiny):
    """A run that has its checkpoints and not its results; its overrides."""
    overrides = [*tiny, "seed=77", "trainer.max_steps=2"]
    run = do(overrides, earlier[0] / "outputs")
    (run / "results.jsonl").unlink()
    return overrides, run


@pytest.mark.parametrize("how", CHECKPOINTS)
def test_a_bad_checkpoint(earlier, begun, capsys, how):
    overrides, run = begun
    spoil, expected = CHECKPOINTS[how]
    last = run / "checkpoints/last.ckpt"
    whole = last.read_bytes()
    state = torch.load(last, weights_only=True)
    spoiled = spoil(last, state)
    if last.is_file() and last.read_bytes() == whole:
        torch.save(spoiled if isinstance(spoiled, list) else state, last)
    try:
        line = told(earlier, capsys, *overrides)
    finally:
        shutil.rmtree(last) if last.is_dir() else last.unlink()
        last.write_bytes(whole)
    for part in ["checkpoints/last.ckpt", *expected, "delete", "to train anew"]:
        assert part in line
    assert not (run / "results.jsonl").exists()


# -- models


def edit(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


#: What is done to a model's folder, and what is said of it.
MODELS = {
    "nothing in it": (lambda folder: [path.unlink() for path in folder.iterdir()], ["cannot be loaded"]),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        ["cannot be loaded", "safetensors"],
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), ["cannot be loaded", "model_type"]),
    "weights cut off": (
        lambda folder: cut(folder / "model.safetensors"),
        ["cannot be loaded", "SafetensorError"],
    ),
    "config of no JSON": (
        lambda folder: (folder / "config.json").write_text("{"),
        ["cannot be loaded", "JSON"],
    ),
    "config of another size": (lambda folder: edit(folder / "config.json", d_model=64), ["cannot be loaded"]),
    "config of another kind": (
        lambda folder: edit(folder / "config.json", model_type="nope"),
        ["cannot", "nope"],
    ),
    "more layers than weights": (
        lambda folder: edit(folder / "config.json", num_layers=2),
        ["lacks", "weights"],
    ),
    "a model that writes no text": (
        lambda folder: (
            edit(folder / "config.json", model_type="vit"),
            cut(folder / "tokenizer_config.json"),
        ),
        ["cannot be loaded"],
    ),
}


def cut(path):
    path.write_bytes(path.read_bytes()[:-50])


@pytest.mark.parametrize("how", MODELS)
def test_a_bad_model(earlier, tiny, base, tmp_path, capsys, how):
    spoil, expected = MODELS[how]
    shutil.copytree(base, tmp_path / "model")
    spoil(tmp_path / "model")
    line = told(earlier, capsys, *tiny, f"model.pretrained={tmp_path / 'model'}")
    for part in [f"model.pretrained={tmp_path / 'model'}", *expected]:
        assert part in line


# -- runs, as export and the tables read them

RUNS = {
    "no config": (lambda run: (run / "config.yaml").unlink(), ["config.yaml", "No such file"]),
    "config of no YAML": (
        lambda run: (run / "config.yaml").write_text("a: [1"),
        ["config.yaml", "no config"],
    ),
    "config of no UTF-8": (lambda run: (run / "config.yaml").write_bytes(b"\xff"), ["config.yaml", "utf-8"]),
    "config of a list": (lambda run: (run / "config.yaml").write_text("- 1"), ["config.yaml", "a mapping"]),
    "config that lacks the model": (
        lambda run: (run / "config.yaml").write_text("a: 1"),
        ["model.pretrained is null"],
    ),
    "config of another base": (
        lambda run: swap(run / "config.yaml", "  pretrained: .*", "  pretrained: cldr-base"),
        ["another base", "no projection"],
    ),
    "config that asks the environment": (
        lambda run: swap(run / "config.yaml", "name: tiny", "name: ${oc.env:HF_TOKEN}"),
        ["config.yaml", "without ${…}"],
    ),
    "config that calls": (
        lambda run: swap(
            run / "config.yaml", "  pretrained: .*", "  pretrained: {_target_: os.system, command: x}"
        ),
        ["_target_ is 'os.system'", "gguf"],
    ),
    "no results": (lambda run: (run / "results.jsonl").unlink(), ["no finished run", "results.jsonl"]),
    "no checkpoints": (lambda run: shutil.rmtree(run / "checkpoints"), ["checkpoints has no"]),
    "a feature that leads out": (
        lambda run: lead_out(run / "checkpoints"),
        ["../../evil", "no name for a folder"],
    ),
}


def swap(path, old, new):
    path.write_text(re.sub(old, new.replace("\\", r"\\"), path.read_text()))


def lead_out(checkpoints):
    for path in checkpoints.iterdir():
        state = torch.load(path, weights_only=True)
        state["ranks"] = {
            name.replace("task:ner", "task:../../evil"): r for name, r in state["ranks"].items()
        }
        torch.save(state, path)


@pytest.mark.parametrize("how", RUNS)
def test_a_bad_run(earlier, tmp_path, how):
    spoil, expected = RUNS[how]
    (run,) = (path.parent for path in earlier[1] if path.name == "results.jsonl")
    shutil.copytree(run, tmp_path / "a/run")
    spoil(tmp_path / "a/run")
    with pytest.raises(cli.REPORTED_ERRORS) as caught:
        list(
            export(
                OmegaConf.create(
                    {"run": f"{tmp_path}/a/run", "out": f"{tmp_path}/a/out", "features": "all"} | EXPORT
                )
            )
        )
    line = " ".join(str(caught.value).split())
    for part in expected:
        assert part in line
    assert {path.name for path in tmp_path.rglob("*") if path.is_dir()} >= {"a", "run"}
    assert not list(tmp_path.rglob("*evil*"))
    assert not (tmp_path / "a/out").exists()


EXPORT = {"checkpoint": None, "merge": False, "pad_rank": None}
