"""A mistake in a command ends in one line that names it and what would be right, and damages nothing."""

import errno
import json
import os
import re
import shutil

import huggingface_hub.constants
import pytest
import torch
from archives import of_folder
from omegaconf import OmegaConf
from tiny_runs import config, do

import commands
from flix_lightning.common import cli, settings
from flix_lightning.inference.export import export
from flix_lightning.runs.run import Run
from flix_lightning.runs.settings import SETTINGS

CLDR = "_target_:flix_lightning.cldr.benchmark.ensure,root:x,validation:1,test:1,seed:0"
GGUF = "_target_:flix_lightning.models.gguf.ensure,licence:x,root:x"
#: Overrides of a run -> parts of its line.
MISTAKES = f"""
mixture.train=[{{task:ner,languages:[sw,swx]}}] -> swx
mixture.train=[{{task:nre,languages:[sw]}}] -> nre ; ner
mixture.train=[{{task:ner,languages:[sw,am]}}] -> ner/train (am) ; data.allow_missing=true
mixture.train=[] -> mixture.train is empty
mixture.train=5 -> mixture.train is 5 ; list of entries
mixture.evaluate=all mixture.train=5 -> mixture.train is 5 ; list of entries
mixture.evaluate=all mixture.train=[ner] -> mixture.train[0]: 'ner' ; `task`
mixture.train=[ner] -> mixture.train[0]: 'ner' ; `task`
mixture.train=[{{task:[ner],languages:[sw]}}] -> unknown task ['ner'] ; tasks are
mixture.train=[{{task:ner,languages:sw}}] -> train[0].languages: 'sw' ; list
mixture.train=[{{task:ner,languages:[false]}}] -> train[0].languages ; "no" in quotes
mixture.train=[{{task:ner,languages:[../x]}}] -> '../x' is no language code ; letters, digits
mixture.train=[{{task:ner,languages:[sw,sw]}}] -> more than once: ner/sw
mixture.report=[translation] -> report (translation) ; add one to evaluate
mixture.report=ner -> mixture.report is 'ner' ; list of tasks
mixture.name=../../x -> mixture.name is '../../x' ; letters, digits
mixture.name=5 -> mixture.name is 5 ; in quotes, as '5'
mixture.report=[false] -> mixture.report is [False] ; in quotes, as ['no']
+flix.ranks.language={{null:1,default:2}} -> flix.ranks.language ; null ; key type
mixture.sampling=5 -> mixture.sampling is 5 ; a mapping
mixture.sampling.temperature=nan -> sampling.temperature is nan ; above 0
mixture.sampling.cap=0.5 -> sampling.cap is 0.5 ; whole number from 1
mixture.ranks=5 -> `mixture.ranks` is not a container
tasks=ner -> tasks is 'ner' ; path of a task's YAML
data.root=??? -> data.root has no value ; data.root=VALUE
data.root=nowhere -> nowhere ; data.root is a folder
data.root={{_target_:os.getcwd}} -> _target_ is 'os.getcwd' ; cldr.benchmark
data.root={{{CLDR}}} -> data.root ; missing 1 required ; 'train'
data.root={{train:0,{CLDR}}} -> error: data.root.train=0 ; whole number from 1
data.root={{train:true,{CLDR}}} -> data.root.train=True ; whole number from 1

flix.ranks=null -> flix.ranks is null ; a mapping
flix.ranks.task=-1 -> ranks.task ; -1 ; >= 0
flix.ranks.task=1.5 -> ranks.task ; 1.5 ; whole number >= 0
flix.ranks.task=[1] -> ranks.task ; [1] ; whole number >= 0
flix.ranks.task=99999999999 -> ranks.task ; 99999999999 ; 65,536
flix.ranks.task=most -> ranks.task ; most ; whole number
flix.lora_rank=most -> flix.lora_rank ; most ; max_active
flix.lora_rank=-1 -> flix.lora_rank ; -1 ; whole number
flix.lora_rank=0 -> rank 0 ; above 0
flix.ranks.task={{nre:2,default:1}} -> ranks.task.nre ; semantic_parsing, ner
flix.ranks.task={{ner:2}} -> ranks.task ; semantic_parsing ; default
flix.ranks.task=0 flix.ranks.language=0 -> all 0 ; above 0
+flix.ranks.family=2 -> family ; language
flix.dropout=null -> dropout ; None ; [0, 1)
flix.dropout=nan -> dropout ; nan ; [0, 1)
flix.dropout=1.0 -> dropout ; 1.0 ; [0, 1)
flix.dropout=-0.1 -> dropout ; -0.1 ; [0, 1)
flix.dropout={{lang:0.3}} -> flix.dropout ; 'lang' ; task, language
flix.learning_rate_ratios={{lang:0.3}} -> flix.learning_rate_ratios ; 'lang' ; task, language
flix.learning_rate_ratios={{task:0}} -> flix.learning_rate_ratios ; above 0
flix.learning_rate_ratios=0.5 -> flix.learning_rate_ratios ; 0.5 ; numbers above 0
flix.controls=[[],[lang]] -> flix.controls ; 'lang' ; task, language
flix.controls=[task] -> flix.controls ; [[task]]
flix.controls=[[task],[task]] -> flix.controls ; ['task'] more than once

model.targets=no.such -> no.such ; SelfAttention.q
model.targets='(q' -> (q ; regular expression
model.dtype=int8 -> model.dtype ; int8 ; bfloat16
model.vocabulary=data -> model.vocabulary=data ; no vocabulary to cut
model.pretrained=./nowhere -> ./nowhere ; no such folder
model.pretrained=https://a.b/c -> model.pretrained=https://a.b/c ; no such folder
model.pretrained={{_target_:os.getcwd}} -> _target_ is 'os.getcwd' ; gguf
model.pretrained={{package:no_gguf,{GGUF}}} -> no_gguf ; pip install
model.pretrained={{package:antigravity,{GGUF}}} -> package='antigravity' ; _gguf

trainer.batch_size=10 -> batch_size 10 ; micro_batch_size 4
trainer.max_steps=1e3 -> trainer.max_steps is 1000.0 ; whole number
trainer.precision=7-bit -> trainer ; 7-bit ; bf16-mixed
trainer.accelerator=abacus -> trainer ; abacus ; cpu
trainer.strategy=luck -> trainer ; luck ; ddp
trainer.devices=0 -> trainer ; 0
optimizer.learning_rate=1e30 -> loss of step 2 is ; lower optimizer.learning_rate
logger.csv=null -> logger.csv is None ; _target_
logger=[wandb] logger.wandb.project=5 -> W&B does not start ; project ; valid string
logger=[wandb] logger.wandb.mode=of -> wandb.mode ; 'of' ; offline, online
+mixture.trian=[] -> mixture.trian ; 'train'
+optimizer.weight_decay=0.1 -> optimizer.weight_decay: no such key
+trainer.limit_val_batches=0 evaluation.test=false -> has no validation scores ; limit_val_batches
trainer.strategy={{_target_:os.getcwd}} -> error: _target_ is 'os.getcwd' ; ShardedStrategy
+trainer.max_step=5 -> trainer.max_step: no such key ; 'trainer.max_steps'
+trainer.determinstic=true -> trainer.determinstic: no such key ; 'trainer.deterministic'
++sede=5 -> sede: no such key ; 'seed'

trainer.max_step=3 -> trainer.max_step: ; did you mean 'trainer.max_steps'?
flix=null -> flix=null ; must be a string or a list
flix=flixx -> flix/flixx ; compute_matched
flox=flix -> flox: ; did you mean 'flix'?
flix.ranks=[task] -> flix.ranks=[task] ; Cannot merge
flix.ranks.language=[1 -> flix.ranks.language=[1: ; KEY=VALUE ; quotes
flix.dropout -> flix.dropout
=5 -> =5
seed=${{nothing}} -> 'nothing' not found ; seed
seed=range(0,1,0) -> seed=range(0,1,0) ; zero
+trainer.threads=5 -> trainer.threads ; ++trainer.threads=5
+sweeps=table99 -> table99 ; table1
"""
MISTAKES = [line.split(" -> ") for line in MISTAKES.splitlines() if line]


@pytest.fixture(scope="module")
def earlier(tiny, tmp_path_factory):
    """A folder of outputs with a finished run; the files of that run."""
    folder = tmp_path_factory.mktemp("bad")
    run = do([*tiny, "trainer.max_steps=1"], folder / "outputs")
    return folder, {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.fixture
def finished(earlier):
    """The folder of the finished run, to be read only."""
    (results,) = (path for path in earlier[1] if path.name == "results.jsonl")
    return results.parent


@pytest.fixture
def error_of(earlier, capsys):
    """The line that a run with some overrides ends in; the run is done in this process."""
    folder, files = earlier

    def do_and_read(*overrides):
        with pytest.raises(cli.REPORTED_ERRORS) as caught:
            do(overrides, folder / "outputs")
        capsys.readouterr()
        cli.print_error(caught.value)
        (line,) = capsys.readouterr().err.splitlines()
        assert {path: path.read_bytes() for path in files} == files
        assert len(line) < 900
        return line

    return do_and_read


def run_of(earlier, *overrides):
    return Run.resolve(config([*overrides, f"output={earlier[0] / 'outputs'}"]))


@pytest.mark.parametrize(("overrides", "parts"), MISTAKES)
def test_a_mistake_is_one_line(error_of, tiny, overrides, parts):
    line = error_of(*tiny, "seed=1000", *overrides.split())
    for part in parts.split(" ; "):
        assert part in line


UNCHECKED = (settings.ANY, settings.MAPPING)
SIMPLE = [
    key
    for key, one in SETTINGS.items()
    if isinstance(one, settings.Setting) and one.kind not in UNCHECKED and key != "logger"
]


@pytest.mark.parametrize("key", SIMPLE)
def test_every_setting_refuses_another_kind_of_value(tiny_config, key):
    cfg = OmegaConf.create(tiny_config)
    OmegaConf.update(cfg, key, [None], merge=False)
    with pytest.raises(settings.UserError, match=rf"^{key} is \[None\]; .* is needed$"):
        Run.resolve(cfg)


@pytest.fixture(scope="module")
def tiny_config(tiny):
    return OmegaConf.to_container(config(tiny))


@pytest.mark.parametrize("override", ["flox=flix", "flix.dropout=1.0"])
def test_a_command_prints_the_line_and_nothing_else(tiny, tmp_path, override):
    ended = commands.run(tmp_path, "train.py", *tiny, override, code=1)
    assert re.fullmatch(r"error: .*\n", ended.err)


def test_a_traceback_is_for_those_who_ask(tiny, tmp_path):
    ended = commands.run(tmp_path, "train.py", *tiny, "seed=-1", code=1, before=ask)
    assert "Traceback" in ended.err
    assert re.search(r"UserError: seed is -1; .*$", ended.err.strip())


def ask():
    cli.TRACEBACK = True


def test_a_multirun_does_its_other_runs(tiny, tmp_path):
    common = [*tiny, "trainer.max_steps=1"]
    ended = commands.run(tmp_path, "train.py", *common, "-m", "flix.dropout=0.1,1.0,0.2", code=1)
    (line,) = (line for line in ended.err.splitlines() if line.startswith("error: "))
    assert "1.0" in line
    runs = [Run.resolve(config([*common, f"flix.dropout={rate}"])).name for rate in (0.1, 0.2)]
    assert sorted(path.parent.name for path in tmp_path.glob("outputs/runs/*/results.jsonl")) == sorted(runs)


def test_a_multirun_on_several_devices(tiny, tmp_path):
    ended = commands.run(tmp_path, "train.py", "-m", *tiny, "trainer.devices=2", code=1)
    assert re.fullmatch(
        r"error: trainer\.devices=2 .*torchrun --standalone --nproc-per-node=2 .*\n", ended.err
    )


def test_a_mistake_in_a_report(tiny, tmp_path):
    ended = commands.run(tmp_path, "report.py", *tiny, "flix.dropuot=0.2", code=1)
    assert re.fullmatch(r"error: flix\.dropuot: .*'flix\.dropout'.*\n", ended.err)


#: A command, where {run} is a finished run and `afile` a file -> parts of its line.
PLACES = """
predict.py run={run} input=. -> input=. is a folder ; JSON lines
predict.py run={run} input=lines.jsonl out=afile/x -> cannot make the folder afile ; part of this path
evaluate.py run={run} output=afile -> cannot make the folder afile ; part of this path
evaluate.py run={run} tasks=5 -> tasks is 5 ; path of a task's YAML
train.py output=afile -> Not a directory ; 'afile/hydra
train.py tasks=5 -> tasks is 5 ; path of a task's YAML
train.py --config-dir own --help mixture=bin -> own/mixture/bin.yaml: cannot be read ; utf-8
dashboard.py out=. -> out=. is a folder ; a file is needed
dashboard.py out= -> out=. is a folder ; a file is needed
"""


@pytest.mark.parametrize("given", PLACES.strip().splitlines())
def test_a_place_that_cannot_be_written_or_read(finished, tmp_path, given):
    (tmp_path / "afile").write_text("mine")
    (tmp_path / "lines.jsonl").write_text('{"text": "a", "task": "ner", "language": "sw"}\n')
    (tmp_path / "own/mixture").mkdir(parents=True)
    (tmp_path / "own/mixture/bin.yaml").write_bytes(b"name: \xff")
    command, _, parts = given.partition(" -> ")
    script, *arguments = command.format(run=finished).split()
    ended = commands.run(tmp_path, script, *arguments, code=1)
    (line,) = [line for line in ended.err.splitlines() if "Loading weights" not in line]
    for part in parts.split(" ; "):
        assert part in line
    assert (tmp_path / "afile").read_text() == "mine"
    assert not (tmp_path / "outputs/data").exists()


# -- data


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
def test_a_broken_file_is_named_before_anything_is_trained(
    earlier, error_of, tiny, data, tmp_path, how, split
):
    shutil.copytree(data, tmp_path / "data")
    spoil, expected = BROKEN[how]
    spoil(tmp_path / "data/ner" / split / "sw.jsonl")
    overrides = [*tiny, f"data.root={tmp_path / 'data'}"]
    line = error_of(*overrides)
    for part in [*expected, f"ner/{split}"]:
        assert part in line
    assert not run_of(earlier, *overrides).checkpoints.exists()


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
def test_a_bad_source(earlier, error_of, tiny, data, tmp_path, how):
    make, expected = SOURCES[how]
    line = error_of(*tiny, f"data.root={make(tmp_path / 'data', data)}")
    for part in expected:
        assert part in line
    assert not list((earlier[0] / "outputs/data").glob("[!.]*"))


# -- disk, hub, results


@pytest.mark.parametrize("name", ["config.yaml", "yo.jsonl", "last.ckpt", "results.jsonl"])
def test_a_full_disk(earlier, error_of, tiny, monkeypatch, name):
    """And once there is room again, the run goes on."""
    replace = os.replace

    def full(source, target):
        if os.path.basename(target) == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    overrides = [*tiny, f"seed={len(name)}", "trainer.max_steps=2"]
    assert f"/{name}: No space left on device" in error_of(*overrides)
    run = run_of(earlier, *overrides)
    assert not run.finished
    assert not list(run.path.rglob(f".{name}.*"))
    if name == "results.jsonl":
        monkeypatch.undo()
        do(overrides, earlier[0] / "outputs")
        assert run.finished


def test_a_model_that_no_hub_gives(error_of, tiny, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    line = error_of(*tiny, "model.pretrained=nobody/nothing")
    assert "model.pretrained=nobody/nothing" in line
    assert "a folder" in line


RESULTS = {
    "empty": (lambda text: "", "results.jsonl: the file is empty"),
    "cut off": (lambda text: text[:-20], "not JSON (cut off at column"),
    "below 0": (lambda text: text.replace('"n": ', '"n": -', 1), "results.jsonl:1: results row: n is -"),
}


@pytest.mark.parametrize("how", RESULTS)
def test_bad_results(earlier, error_of, tiny, how):
    spoil, expected = RESULTS[how]
    ((results, content),) = (
        (path, text) for path, text in earlier[1].items() if path.name == "results.jsonl"
    )
    results.write_text(spoil(content.decode()))
    earlier[1][results] = results.read_bytes()
    try:
        line = error_of(*tiny, "trainer.max_steps=1")
        assert expected in line
        assert "results.jsonl" in line
        assert "; delete the file to do the run again" in line
    finally:
        results.write_bytes(content)
        earlier[1][results] = content


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
def test_a_bad_checkpoint(error_of, begun, how):
    overrides, run = begun
    spoil, expected = CHECKPOINTS[how]
    last = run / "checkpoints/last.ckpt"
    whole = last.read_bytes()
    state = torch.load(last, weights_only=True)
    spoiled = spoil(last, state)
    if last.is_file() and last.read_bytes() == whole:
        torch.save(spoiled if isinstance(spoiled, list) else state, last)
    try:
        line = error_of(*overrides)
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
def test_a_bad_model(error_of, tiny, base, tmp_path, how):
    spoil, expected = MODELS[how]
    shutil.copytree(base, tmp_path / "model")
    spoil(tmp_path / "model")
    line = error_of(*tiny, f"model.pretrained={tmp_path / 'model'}")
    for part in [f"model.pretrained={tmp_path / 'model'}", *expected]:
        assert part in line


# -- runs, as export and the tables read them


def in_config(old, new):
    return lambda run: swap(run / "config.yaml", old, new)


RUNS = {
    "no config": (lambda run: (run / "config.yaml").unlink(), ["config.yaml", "No such file"]),
    "config of no YAML": (
        lambda run: (run / "config.yaml").write_text("a: [1"),
        ["config.yaml", "no config"],
    ),
    "config of no UTF-8": (lambda run: (run / "config.yaml").write_bytes(b"\xff"), ["config.yaml", "utf-8"]),
    "config of a number": (lambda run: (run / "config.yaml").write_text("5"), ["config.yaml", "no config"]),
    "config of a list": (lambda run: (run / "config.yaml").write_text("- 1"), ["config.yaml", "a mapping"]),
    "config that lacks the model": (
        lambda run: (run / "config.yaml").write_text("a: 1"),
        ["seed is null"],
    ),
    "config of another base": (
        in_config("  pretrained: .*", "  pretrained: cldr-base"),
        ["another base", "no projection"],
    ),
    "config that asks the environment": (
        in_config("name: tiny", "name: ${oc.env:HF_TOKEN}"),
        ["config.yaml", "without ${…}"],
    ),
    "config that calls": (
        in_config("  pretrained: .*", "  pretrained: {_target_: os.system, command: x}"),
        ["_target_ is 'os.system'", "gguf"],
    ),
    "config of kinds in a list": (
        in_config("  attributes: .*", "  attributes: [family]"),
        ["mixture.attributes is ['family']", "{KIND: {from: language"],
    ),
    "config of a wrong choice": (
        in_config("selection: .*", "selection: [x]"),
        ["evaluation.selection is ['x']", "one of task, average"],
    ),
    "config that names a file to read": (
        in_config("tasks: .*", "tasks: {ner: secrets.yaml}"),
        ["config.yaml: tasks.ner is 'secrets.yaml'", "a mapping"],
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
def test_a_bad_run(finished, tmp_path, how):
    spoil, expected = RUNS[how]
    shutil.copytree(finished, tmp_path / "a/run")
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
    assert not list(tmp_path.rglob("*evil*"))
    assert not (tmp_path / "a/out").exists()


EXPORT = {"checkpoint": None, "format": "peft", "merge": False, "pad_rank": None}
