import copy
import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from functools import partial, wraps
from itertools import chain, count, cycle, repeat
from statistics import fmean
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from tiny_data import SEEN, UNSEEN
from tiny_runs import checkpoint, config, do, fact, predictions, rows
from transformers import AutoModelForSeq2SeqLM

import commands
from flix_lightning.adapter.features import FeatureDropout
from flix_lightning.common.errors import UserError
from flix_lightning.data.datamodule import DataModule
from flix_lightning.models import base as models
from flix_lightning.runs.run import Run
from flix_lightning.tasks import metrics
from flix_lightning.training import interruption, module
from flix_lightning.training import train as experiment
from flix_lightning.training.checkpointing import AtomicCheckpointIO, BestCheckpoint
from flix_lightning.training.interruption import SIGNALS, Preemption
from flix_lightning.training.module import FlixModule
from flix_lightning.training.processes import RunEnvironment
from flix_lightning.training.train import Training, make_trainer

METRIC = {"semantic_parsing": "exact_match", "ner": "span_f1"}


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A run of five steps, validated every second."""
    return do([*tiny, "flix.dropout=0.6"], tmp_path_factory.mktemp("finished"))


# -- what a run leaves behind


def test_rows_are_complete(finished):
    seen = {**dict.fromkeys(SEEN, "seen"), **UNSEEN}
    expected = {
        ("validation", *name, "seen", "all", METRIC[name[0]], 3, step) for name in SEEN for step in (2, 4, 5)
    }
    for (task, language), how in seen.items():
        (step,) = {row["step"] for row in rows(finished, split="test", task=task)}
        for active in ("all", "none", "task", "language"):
            expected.add(("test", task, language, how, active, METRIC[task], 4, step))
    keys = ("split", "task", "language", "seen", "active", "metric", "n", "step")
    found = [tuple(row[key] for key in keys) for row in rows(finished) if row["split"] != "train"]
    assert len(found) == len(expected)
    assert set(found) == expected
    for row in rows(finished):
        assert finished.name == f"flix-tiny-seed0-{row['run']}"
        assert (row["method"], row["mixture"], row["seed"]) == ("FLix", "tiny", 0)


def test_facts_of_the_run(finished, base, tiny):
    model = AutoModelForSeq2SeqLM.from_pretrained(base)
    widths = [
        m.in_features + m.out_features
        for name, m in model.named_modules()
        if isinstance(m, torch.nn.Linear) and name != "lm_head"
    ]
    # Ranks 4 and 2; two tasks and three languages are trained.
    assert fact(finished, "rank") == 6
    assert fact(finished, "active_parameters") == 6 * sum(widths)
    assert fact(finished, "total_parameters") == (2 * 4 + 3 * 2) * sum(widths)
    assert fact(finished, "examples_seen") == 5 * 8
    assert 0 < fact(finished, "seconds") < 600
    assert all(row["n"] == 40 and row["step"] == 5 for row in rows(finished, split="train"))

    run = Run.resolve(config([*tiny, f"output={finished.parent}"]))
    data = DataModule(
        run.layout,
        run.mixture,
        run.tokenization(models.load(str(base), "main", "float32")),
        kinds=["task", "language"],
        batch_size=8,
        micro_batch_size=8,
        eval_batch_size=8,
        validation_cap=None,
        test_cap=None,
        max_steps=5,
        seed=0,
        cache_dir=finished / "cache",
    )
    dropout = FeatureDropout(0, 0.6)
    kept = [names for b in data.train_dataloader() for names in dropout(b["features"], b["ids"], b["step"])]
    assert 0 < kept.count(()) < 40
    assert fact(finished, "share_without_features") == kept.count(()) / 40


@pytest.mark.parametrize(("steps", "every", "validated"), [(4, 2, [2, 4]), (3, 200, [3])])
def test_the_last_step_is_validated_once(tiny, tmp_path, steps, every, validated):
    overrides = [f"trainer.max_steps={steps}", f"evaluation.every={every}", "flix.controls=[]"]
    folder = do([*tiny, *overrides], tmp_path)
    found = [row["step"] for row in rows(folder, split="validation", task="ner", language="sw")]
    assert found == validated


# -- selection

#: Means of each validation, and where they are highest: by task, and on average.
SCRIPT = {"semantic_parsing": [10, 30, 20, 5], "ner": [5, 1, 50, 49]}


class Scripted:
    """A metric whose scores are listed beforehand, one for each dataset and validation."""

    def __init__(self, scores):
        self.scores = iter(scores)

    def counts(self, predictions, targets):
        return np.zeros((len(predictions), 1))

    def score(self, sums):
        return next(self.scores, 0)


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [("task", {"semantic_parsing": 2, "ner": 3}), ("average", {"semantic_parsing": 3, "ner": 3})],
)
def test_selection(tiny, tmp_path, monkeypatch, selection, chosen):
    # Two seen datasets of each task: 2 below and 2 above the mean.
    scripted = {
        METRIC[task]: Scripted([score + offset for score in scores for offset in (-2, 2)])
        for task, scores in SCRIPT.items()
    }
    monkeypatch.setattr(metrics, "get_metric", scripted.__getitem__)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=count(step=10).__next__))
    saved, tested = {}, {}

    class Spy(FlixModule):
        def on_save_checkpoint(self, checkpoint):
            super().on_save_checkpoint(checkpoint)
            saved[self.global_step] = copy.deepcopy(checkpoint)

        def test_step(self, batch):
            tested[self.evaluated[batch["dataset"][0]].task] = copy.deepcopy(self.adapter.state_dict())
            super().test_step(batch)

    monkeypatch.setattr(experiment, "FlixModule", Spy)
    overrides = ["trainer.max_steps=4", "evaluation.every=1", f"evaluation.selection={selection}"]
    cfg = config([*tiny, *overrides, "flix.controls=[]", f"output={tmp_path}"])
    value = experiment.train(cfg)
    assert value == sum(SCRIPT[task][step - 1] for task, step in chosen.items()) / 2
    folder = Run.resolve(cfg).path
    for task, step in chosen.items():
        torch.testing.assert_close(tested[task], saved[step]["adapter"], rtol=0, atol=0)
        assert checkpoint(folder, f"best-{task if selection == 'task' else 'average'}")["global_step"] == step
    # The time is that of the whole training, and not of the checkpoint that was tested last.
    assert fact(folder, "seconds") == saved[4]["seconds"] > saved[3]["seconds"] > 0


def test_a_search_sees_no_test_data(tiny, tmp_path, monkeypatch):
    def forbidden(*args, **options):
        raise AssertionError("test data was evaluated")

    monkeypatch.setattr(FlixModule, "test_step", forbidden)
    cfg = config([*tiny, "trainer.max_steps=2", "evaluation.test=false", f"output={tmp_path}"])
    value = experiment.train(cfg)
    folder = Run.resolve(cfg).path
    assert {row["split"] for row in rows(folder)} == {"train", "validation"}
    assert [path.name for path in (folder / "predictions").iterdir()] == ["validation-2"]
    validation = defaultdict(list)
    for row in rows(folder, split="validation"):
        validation[row["task"]].append(row["value"])
    assert value == pytest.approx(fmean(map(fmean, validation.values())))


# -- the hash

DECIDES = {
    "seed": 1,
    "model.targets": "default",
    "model.dtype": "bfloat16",
    "model.vocabulary": "data",
    "data.languages": {"sw": "Swahili of the coast"},
    "data.max_input_length": 40,
    "data.max_target_length": 5,
    "flix.ranks": {"task": 4, "language": 3},
    "flix.dropout": {"task": 0.3},
    "flix.rescale": True,
    "flix.learning_rate_ratios": {"language": 0.5},
    "flix.controls": [[]],
    "mixture.sampling.temperature": 2,
    "mixture.sampling.cap": 10,
    "mixture.report": ["ner"],
    "mixture.train": [{"task": "ner", "languages": ["sw", "yo"]}],
    "mixture.evaluate": [{"task": "ner", "languages": ["sw", "yo"]}],
    "trainer.max_steps": 6,
    "trainer.batch_size": 16,
    "trainer.precision": "bf16-mixed",
    "trainer.gradient_clip_val": None,
    "optimizer.learning_rate": 1e-3,
    "optimizer.warmup_steps": 3,
    "optimizer.lazy": True,
    "evaluation.every": 3,
    "evaluation.validation_cap": 2,
    "evaluation.test": False,
    "evaluation.test_cap": 2,
    "evaluation.selection": "average",
}
LEAVES = {
    "output": "elsewhere",
    "tables": ["table1"],
    "logger": {},
    "data.name": "other",
    "mixture.name": "other",
    "flix.name": "Other",
    "data.allow_missing": True,
    "data.samples": [],
    "trainer.accelerator": "auto",
    "trainer.devices": 2,
    "trainer.strategy": "ddp",
    "trainer.threads": 0,
    "trainer.progress": "bar",
    "trainer.micro_batch_size": 8,
    "trainer.activation_checkpointing": True,
    "trainer.compile": True,
    "trainer.num_nodes": 2,
    "evaluation.batch_size": 7,
    "flix.dropout": 3e-1,
    "data.feature_dropout": 0.5,  # where flix.dropout says another
    "data.rescale": True,  # where flix.rescale says another
    "data.learning_rates": {"flix": 0.5},  # where optimizer.learning_rate says another
    "flix.learning_rate": 0.5,  # where optimizer.learning_rate says another
    "optimizer.learning_rate": 0.02,
}


@pytest.fixture(scope="module")
def cfg(tiny):
    return config(tiny)


def changed(cfg, **values):
    cfg = copy.deepcopy(cfg)
    for key, value in values.items():
        OmegaConf.update(cfg, key, value, merge=False)
    return Run.resolve(cfg)


@pytest.mark.parametrize("key", DECIDES)
def test_what_decides_the_result_changes_the_hash(cfg, key):
    assert changed(cfg, **{key: DECIDES[key]}).id != changed(cfg).id


@pytest.mark.parametrize("key", LEAVES)
def test_what_leaves_the_result_leaves_the_hash(cfg, key):
    assert changed(cfg, **{key: LEAVES[key]}).id == changed(cfg).id


def test_every_setting_is_known_to_decide_or_not(cfg):
    """So that a new one is put into one of the lists above."""
    settings = {key for key in leaves(OmegaConf.to_container(cfg)) if not key.startswith("logger.")}
    elsewhere = [
        "data.root",
        "model.pretrained",
        "model.revision",
        "model.chat_template",
        "mixture.attributes",
        "mixture.ranks",
        "flix.lora_rank",
        "start",
        "tasks",
    ]
    listed = [*DECIDES, *LEAVES, *elsewhere]
    assert {key for key in settings if not any(f"{key}.".startswith(f"{one}.") for one in listed)} == set()


def test_flixs_dropout_is_the_datas_own_unless_said():
    shared = ["flix=flix_shared"]
    assert config(shared).flix.dropout == {**config([]).data.feature_dropout, "shared": 0}
    one_rate = config([*shared, "data.feature_dropout=0.3"])
    assert one_rate.flix.dropout == {"task": 0.3, "language": 0.3, "shared": 0}
    assert config([]).flix.rescale
    assert not config(["flix=compute_matched"]).flix.rescale
    assert config(["data=xtreme_up", "data.root=x"]).flix.dropout == 0.7  # the paper's, on the paper's data
    assert config([]).flix.dropout == config([]).data.feature_dropout
    assert config(["flix.dropout=0.25"]).flix.dropout == 0.25
    assert config(["flix=compute_matched"]).flix.dropout == 0


@pytest.mark.parametrize("method", ["flix", "compute_matched", "param_matched"])
def test_the_learning_rate_is_the_methods_own_unless_said(method):
    own = config([f"flix={method}"])
    assert own.optimizer.learning_rate == own.flix.learning_rate > 0
    assert config([f"flix={method}", "flix.learning_rate=0.5"]).optimizer.learning_rate == 0.5


def leaves(node, prefix=""):
    if not isinstance(node, dict) or not node:
        return [prefix]
    return [leaf for key, value in node.items() for leaf in leaves(value, f"{prefix}.{key}".lstrip("."))]


def test_data_and_base_decide_by_what_they_hold_and_not_by_where(cfg, base, data, tmp_path):
    shutil.copytree(base, tmp_path / "base")
    shutil.copytree(data, tmp_path / "data")
    places = {"model.pretrained": str(tmp_path / "base"), "data.root": str(tmp_path / "data")}
    here = changed(cfg, **places).id
    assert here == changed(cfg).id
    with (tmp_path / "data/ner/test/zu.jsonl").open("a") as file:
        file.write('{"text": "one", "target": "more"}\n')
    with_more = changed(cfg, **places).id
    weights = bytearray((tmp_path / "base/model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "base/model.safetensors").write_bytes(weights)
    assert len({here, with_more, changed(cfg, **places).id}) == 3


# -- a run that was done, is being done, or was broken off


def state(folder):
    """All that a resumed run must share with an unbroken one."""
    results = [row for row in rows(folder) if row["metric"] != "seconds"]
    checkpoints, loops = {}, []
    for name in ("best-semantic_parsing", "best-ner", "last"):
        found = checkpoint(folder, name)
        loops.append(found["loops"])
        checkpoints[name] = {
            key: found.get(key)
            for key in (
                "adapter",
                "ranks",
                "global_step",
                "optimizer_states",
                "lr_schedulers",
                "seen_without",
            )
        }
    return [*results, *loops], predictions(folder), checkpoints


def assert_same(folder, expected):
    results, predicted, checkpoints = state(folder)
    assert results == expected[0]
    assert predicted == expected[1]
    torch.testing.assert_close(checkpoints, expected[2], rtol=0, atol=0)


def test_a_finished_run_is_not_done_again(finished, tiny, caplog):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    with caplog.at_level("INFO"):
        assert do([*tiny, "flix.dropout=0.6", "logger=[csv,wandb]"], finished.parents[1]) == finished
    assert f"Skipped, finished already: {finished}" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


RESUMED = ["trainer.max_steps=7", "evaluation.every=2", "evaluation.batch_size=4"]  # validated at 2, 4, 6, 7


@pytest.fixture(scope="module")
def unbroken(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    commands.run(folder, "train.py", *tiny, *RESUMED)
    (path,) = folder.glob("outputs/runs/*")
    return path


def die_in(owner, name, calls, only="", how=signal.SIGKILL):
    """Kill this process, as `kill -9` does, in a call of a method: the n-th that is given `only`."""
    whole = getattr(owner, name)
    left = iter(range(calls - 1, -1, -1))

    @wraps(whole)
    def dies(self, *args, **options):
        if any(only in str(one) for one in args) and next(left, None) == 0:
            os.kill(os.getpid(), how)
        return whole(self, *args, **options)

    setattr(owner, name, dies)


def die_before_results():
    die_in(os, "replace", 1, "results.jsonl")


#: Two micro-batches a step, three batches a validation and a test; each moment counts from the last kill.
MOMENTS = {
    "before any checkpoint": partial(die_in, FlixModule, "training_step", 3),
    "within a step": partial(die_in, FlixModule, "training_step", 8),  # of step 4, once 2 was validated
    "within a validation": partial(die_in, FlixModule, "validation_step", 2),  # of step 4
    "between checkpoints of one step": partial(die_in, AtomicCheckpointIO, "save_checkpoint", 2, "last"),
    "within the second micro-batch of the last step": partial(die_in, FlixModule, "training_step", 6),
    "within the tests": partial(die_in, FlixModule, "test_step", 14),
    "before the results": partial(die_in, experiment.Training, "_facts", 1),
    "before the written results are in their place": die_before_results,
}


def test_killed_and_called_again_it_ends_as_an_unbroken_run_does(tiny, tmp_path, unbroken):
    went_on = []
    for moment in MOMENTS.values():
        killed = commands.run(tmp_path, "train.py", *tiny, *RESUMED, before=moment, code=-signal.SIGKILL)
        assert not list(tmp_path.glob("outputs/runs/*/results.jsonl"))
        went_on.append("resuming from" in killed.out)
    ended = commands.run(tmp_path, "train.py", *tiny, *RESUMED)
    assert went_on == [False, False, *[True] * 6]
    assert "validating" not in ended.out
    (folder,) = tmp_path.glob("outputs/runs/*")
    assert folder.name == unbroken.name
    assert_same(folder, state(unbroken))


def test_killed_from_outside_it_ends_as_an_unbroken_run_does(tiny, tmp_path, unbroken):
    started = commands.start(tmp_path, "train.py", *tiny, *RESUMED)
    started.wait_for("outputs/runs/*/validations/*")
    started.kill()
    (folder,) = tmp_path.glob("outputs/runs/*")
    assert not (folder / "results.jsonl").exists()
    commands.run(tmp_path, "train.py", *tiny, *RESUMED)
    assert_same(folder, state(unbroken))


def save_often_and_die_in_step_4():
    interruption.SAVE_SECONDS = 0
    die_in(FlixModule, "training_step", 8)


def test_killed_long_after_a_validation_it_goes_on_from_where_it_saved(tiny, tmp_path, unbroken):
    killed = {"before": save_often_and_die_in_step_4, "code": -signal.SIGKILL}
    commands.run(tmp_path, "train.py", *tiny, *RESUMED, **killed)
    (folder,) = tmp_path.glob("outputs/runs/*")
    assert checkpoint(folder)["global_step"] == 3  # step 2 was validated
    commands.run(tmp_path, "train.py", *tiny, *RESUMED)
    assert_same(folder, state(unbroken))


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_interrupted_it_says_how_to_go_on(tiny, tmp_path, how, code):
    """And a multirun does not begin another run."""
    started = commands.start(tmp_path, "train.py", "-m", *tiny, "trainer.max_steps=500", "seed=0,1")
    started.wait_for("outputs/runs/*/validations/*")
    os.kill(started.process.pid, how)
    started.wait(code)
    (folder,) = tmp_path.glob("outputs/runs/*")
    assert not (folder / "results.jsonl").exists()
    assert f"{folder.name}: interrupted; call again to go on" in started.err
    assert "Traceback" not in started.err


#: Where a signal comes, and the step that the run then goes on from: of a validation, the one it is of.
ASKED = [
    (partial(die_in, BestCheckpoint, "on_train_start", 1), None),  # before the first step
    (partial(die_in, FlixModule, "training_step", 1), 1),  # before the first validation
    (partial(die_in, FlixModule, "training_step", 3), 3),  # the first micro-batch of step 3
    (partial(die_in, FlixModule, "validation_step", 2), 4),
    (partial(die_in, FlixModule, "validation_step", 1), 4),  # the same one again
    (partial(die_in, AtomicCheckpointIO, "save_checkpoint", 1, "last"), 4),
    (partial(die_in, FlixModule, "training_step", 4), 6),  # validated first: the signal comes before
    (partial(die_in, FlixModule, "validation_step", 4), 6),  # of step 7, the last one
    (partial(die_in, FlixModule, "test_step", 3), 7),  # the last batch of an evaluation
]


def test_asked_to_leave_it_saves_and_ends_as_an_unbroken_run_does(tiny, tmp_path, unbroken):
    for (moment, step), how in zip(ASKED, cycle(SIGNALS), strict=False):
        asked = partial(moment, how=how)
        left = commands.run(tmp_path, "train.py", *tiny, *RESUMED, before=asked, code=143)
        assert left.err.endswith("interrupted; call again to go on\n")
        (folder,) = tmp_path.glob("outputs/runs/*")
        saved = (folder / "checkpoints/last.ckpt").exists()
        assert (checkpoint(folder)["global_step"] if saved else None) == step
        assert not (folder / "results.jsonl").exists()
    commands.run(tmp_path, "train.py", *tiny, *RESUMED)
    assert_same(folder, state(unbroken))


def on_slurm():
    """Have Lightning think so: it then goes on from what another job saved where the command is called."""
    os.environ |= {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "sweep", "SLURM_JOB_ID": "1"}
    os.environ |= dict.fromkeys(("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"), "0")


def test_on_slurm_it_does_not_go_on_from_another_run(tiny, tmp_path, unbroken):
    folder = Run.resolve(config([*tiny, *RESUMED, "seed=1", f"output={tmp_path}/outputs"])).path
    for place in (tmp_path, folder / "checkpoints"):  # where older runs left such files
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(unbroken / "checkpoints/last.ckpt", place / "hpc_ckpt_1.ckpt")
    commands.run(tmp_path, "train.py", *tiny, *RESUMED, "seed=1", before=on_slurm)
    assert {row["step"] for row in rows(folder, split="validation")} == {2, 4, 6, 7}


def test_it_goes_on_elsewhere_and_in_other_micro_batches(tiny, tmp_path, monkeypatch, unbroken):
    """And still knows that its first validation was the best."""

    class Breaks(FlixModule):
        def training_step(self, batch):
            if batch["step"] == 3:
                raise OSError("as if killed")
            return super().training_step(batch)

    scripted = {name: Scripted(chain([50, 50], repeat(49))) for name in METRIC.values()}
    monkeypatch.setattr(metrics, "get_metric", scripted.__getitem__)
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "FlixModule", Breaks)
        with pytest.raises(OSError, match="as if killed"):
            do([*tiny, *RESUMED], tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    folder = do([*tiny, *RESUMED, "trainer.micro_batch_size=2"], tmp_path / "there")
    found = [
        (row["step"], row["value"]) for row in rows(folder, split="validation", task="ner", language="sw")
    ]
    assert found == [(2, 50), (4, 49), (6, 49), (7, 49)]
    assert {row["step"] for row in rows(folder, split="test")} == {2}
    assert fact(folder, "examples_seen") == 7 * 8
    torch.testing.assert_close(
        checkpoint(folder)["adapter"], checkpoint(unbroken)["adapter"], rtol=1e-3, atol=1e-4
    )


def test_another_process_at_the_same_run(tiny, tmp_path):
    folder = Run.resolve(config([*tiny, f"output={tmp_path}/outputs"]))
    with folder.lock():
        busy = commands.run(tmp_path, "train.py", *tiny, code=1)
        assert busy.err.startswith("error: ")
        assert folder.path.name in busy.err
        assert "another process" in busy.err
        assert busy.err.count("\n") == 1
        swept = commands.run(tmp_path, "train.py", "-m", "seed=0,1", *tiny)
    assert f"Skipped, outputs/runs/{folder.path.name}: another process" in swept.err
    (other,) = tmp_path.glob("outputs/runs/*/results.jsonl")
    assert other.parent.name.startswith("flix-tiny-seed1-")


@pytest.mark.parametrize("broken", ["last", "best-ner"])
@pytest.mark.parametrize("how", ["cut", "other", "gone"])
def test_a_broken_checkpoint(tiny, tmp_path, unbroken, finished, broken, how):
    folder = tmp_path / "runs" / unbroken.name
    shutil.copytree(unbroken, folder)
    (folder / "results.jsonl").unlink()
    path = folder / "checkpoints" / f"{broken}.ckpt"
    if how == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "other":
        torch.save({"state_dict": {}, "global_step": 3}, path)
    else:
        path.unlink()
    if (broken, how) == ("last", "gone"):  # then there is nothing to go on from
        assert_same(do([*tiny, *RESUMED], tmp_path), state(unbroken))
        return
    with pytest.raises(UserError, match=f"{broken}.ckpt.*delete .*checkpoints"):
        do([*tiny, *RESUMED], tmp_path)
    assert not (folder / "results.jsonl").exists()


def test_options_of_lightning_reach_its_trainer(tiny, tmp_path, monkeypatch):
    given = [
        "+trainer.deterministic=true",
        "+trainer.profiler=simple",
        "+trainer.max_time={hours:1}",
        "+trainer.log_every_n_steps=7",
        "+trainer.limit_val_batches=3",
        "+trainer.limit_test_batches=0.5",
        "+trainer.callbacks=[{_target_:lightning.pytorch.callbacks.DeviceStatsMonitor}]",
        "+trainer.plugins=[{_target_:lightning.pytorch.plugins.TorchSyncBatchNorm}]",
    ]
    command = OmegaConf.create({"hydra": {"overrides": {"task": given}}})  # else no call is made
    monkeypatch.setattr(HydraConfig.instance(), "cfg", command)
    run = Run.resolve(config([*tiny, *given, f"output={tmp_path}"]))
    environment = RunEnvironment()
    try:
        trainer = make_trainer(run, environment, Preemption(run, environment))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert type(trainer.profiler).__name__ == "SimpleProfiler"
    assert (trainer.limit_val_batches, trainer.limit_test_batches, trainer.log_every_n_steps) == (3, 0.5, 7)
    added = {"Timer", "DeviceStatsMonitor", "Preemption", "BestCheckpoint"}
    assert added <= {type(callback).__name__ for callback in trainer.callbacks}
    assert type(trainer._accelerator_connector._layer_sync).__name__ == "TorchSyncBatchNorm"


# -- several devices

#: An odd number of examples to validate, and a test of one example, fewer than there are processes.
UNEVEN = [
    "mixture.evaluate=[{task:semantic_parsing,languages:[sw]},{task:ner,languages:[sw,yo,zu]}]",
    "evaluation.test_cap=1",
    "evaluation.batch_size=4",
    "evaluation.every=8",
    "model.dtype=float64",
    "trainer.precision=64-true",
    "flix.dropout=0.6",
    "trainer.max_steps=20",
    "trainer.micro_batch_size=2",
]
SEVERAL = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.threads=1"]


@pytest.fixture(scope="module")
def one_process(tiny, tmp_path_factory):
    return do([*tiny, *UNEVEN], tmp_path_factory.mktemp("one"))


def in_two(folder, overrides):
    """A run that Lightning starts the second process of; its folder, and what both said."""
    command = [sys.executable, str(commands.REPOSITORY / "train.py"), *overrides, *UNEVEN]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    (path,) = folder.glob("outputs/runs/*")
    return path, ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def two_processes(tiny, tmp_path_factory):
    return in_two(tmp_path_factory.mktemp("two"), [*SEVERAL, *tiny])[0]


def test_two_processes_do_as_one_does(one_process, two_processes):
    assert [row["n"] for row in rows(one_process, split="test", task="semantic_parsing", active="all")] == [1]
    assert_alike(one_process, two_processes)


def test_a_base_that_is_spread_over_two_processes(one_process, tiny, tmp_path):
    two, said = in_two(tmp_path, ["trainer=fsdp", *SEVERAL[1:], *tiny])
    held, whole = re.search(r"over 2 devices: each holds (\S+) of their (\S+) parameters", said).groups()
    assert 2 * int(held.replace(",", "")) == int(whole.replace(",", "")) > 0
    assert_alike(one_process, two)


def assert_alike(one_process, two):
    assert two.name == one_process.name
    assert predictions(two) == predictions(one_process)
    for alone, both in zip(rows(one_process), rows(two), strict=True):
        assert alone == both or alone["metric"] == "seconds"
    for name in ("best-semantic_parsing", "best-ner", "last"):
        found, expected = checkpoint(two, name), checkpoint(one_process, name)
        torch.testing.assert_close(found["adapter"], expected["adapter"])
        assert found.keys() == expected.keys()
        if name == "last":  # of whole pools, so that a run may go on with another trainer
            torch.testing.assert_close(found["optimizer_states"], expected["optimizer_states"])
    alone, both = (losses(folder) for folder in (one_process, two))
    assert len(alone) == 2
    assert both == pytest.approx(alone, rel=1e-6)


def losses(folder):
    with (folder / "metrics/version_0/metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def together(folder, *overrides, moments=((), ()), code=0):
    """Do a run in two processes, each with its own moments, that write to one `outputs/`."""
    given = [*SEVERAL, *overrides, f"output={folder}/outputs"]
    started = commands.start_two(folder, "train.py", *given, moments=moments)
    return [one.wait(code if rank == 0 else 0) for rank, one in enumerate(started)]


def test_a_busy_or_finished_run_ends_every_process_at_once(tiny, tmp_path, two_processes):
    for ended in together(two_processes.parents[2], *tiny, *UNEVEN):
        assert f"Skipped, finished already: {two_processes}" in ended.out + ended.err
    given = [*SEVERAL, *tiny, *UNEVEN, f"output={tmp_path}/outputs"]
    with Run.resolve(config(given)).lock():
        for started in commands.start_two(tmp_path, "train.py", *given):
            assert started.wait(1).err.startswith("error: ")
            assert "another process is working on this run" in started.err
            assert started.err.count("\n") == 1


def tell():
    """Print what this process finds and decides, and what it writes."""
    scores, load, best = FlixModule._scores, Training._load, BestCheckpoint.on_validation_end

    def tells_scores(self):
        found = scores(self)
        print("FOUND", self.global_step, [(one.dataset, one.values, one.predictions) for one in found])
        return found

    def tells_best(self, trainer, module):
        best(self, trainer, module)
        print("BEST", self.filename, self.best_model_score)

    def tells_chosen(self, checkpoint):
        load(self, checkpoint)
        print("CHOSEN", checkpoint.step, float(sum(map(torch.sum, self.adapter.parameters()))))

    def tells_written(event, args):
        writes = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in ("os.rename", "os.remove")) and "outputs" in str(args[0]):
            print("WRITES", args[0])

    FlixModule._scores, Training._load = tells_scores, tells_chosen
    BestCheckpoint.on_validation_end = tells_best
    sys.addaudithook(tells_written)


def test_processes_agree_and_the_first_alone_writes(tiny, tmp_path):
    logger = "logger=[csv,wandb]"
    told = together(tmp_path, *tiny, *UNEVEN, "trainer.max_steps=9", logger, moments=[[tell], [tell]])
    decided, written = (
        [
            [line for line in one.out.splitlines() if line.split(" ")[0] in words and "/hydra" not in line]
            for one in told
        ]
        for words in (("FOUND", "BEST", "CHOSEN"), ("WRITES",))
    )
    assert len(decided[0]) == 2 + 8 + 2 * 2 + 2  # validations, tests, best checkpoints, those for the tests
    assert decided[0] == decided[1]
    assert any("results.jsonl" in line for line in written[0])
    assert not written[1]


def test_processes_that_are_asked_to_leave_do_so_together(tiny, tmp_path, two_processes):
    """Whichever of them is asked; and end as if they had not been."""
    for rank, moment, step in (
        (1, partial(die_in, FlixModule, "training_step", 19), 10),  # the first micro-batch of step 10
        (1, partial(die_in, FlixModule, "validation_step", 1), 16),
        (0, partial(die_in, FlixModule, "test_step", 1), 20),
    ):
        moments = [(), ()]
        moments[rank] = [partial(moment, how=signal.SIGTERM)]
        together(tmp_path, *tiny, *UNEVEN, moments=moments, code=143)
        (folder,) = tmp_path.glob("outputs/runs/*")
        assert checkpoint(folder)["global_step"] == step
    together(tmp_path, *tiny, *UNEVEN)
    assert_same(folder, state(two_processes))
