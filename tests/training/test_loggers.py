import csv
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_runs
import torch
import wandb
from omegaconf import OmegaConf
from wandb.proto.wandb_internal_pb2 import Record

import commands
from flix_lightning.common.errors import UserError
from flix_lightning.runs.rows import Row
from flix_lightning.runs.run import Run
from flix_lightning.training.loggers import log_evaluation, open_loggers
from flix_lightning.training.module import FlixModule

CONF = Path(__file__).parents[2] / "conf" / "logger"


@pytest.fixture
def cfg(monkeypatch):
    """The two loggers as `conf/logger` ships them, with nothing of W&B in the environment."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    return OmegaConf.merge(OmegaConf.load(CONF / "csv.yaml"), OmegaConf.load(CONF / "wandb.yaml"))


def a_run(tmp_path, digest, **config):
    cfg = {
        "flix": {"name": "FLix", "dropout": 0.7},
        "mixture": {"name": "joint"},
        "tables": ["table1"],
        "seed": 0,
    }
    return Run(OmegaConf.create({**cfg, **config}), tmp_path / f"flix-joint-{digest}")


def scores(split, step, value, seen="seen", active="all", languages=("am", "sw"), task="ner"):
    return [
        Row(
            run="0123456789",
            method="FLix",
            mixture="joint",
            seed=0,
            split=split,
            task=task,
            language=language,
            seen=seen,
            active=active,
            metric="span_f1",
            value=value + 10 * index,
            n=100,
            step=step,
        )
        for index, language in enumerate(languages)
    ]


def ended(folder):
    return any(record.WhichOneof("record_type") == "exit" for record in records(folder))


def offline_runs(run):
    """The run's offline folders, once W&B's own process has written the last record of each."""
    folders = sorted((run.path / "wandb").glob("offline-run-*"))
    deadline = time.monotonic() + 20
    while not all(ended(folder) for folder in folders):
        assert time.monotonic() < deadline, f"no end of run in {folders}"
        time.sleep(0.01)
    return folders


def records(folder):
    """The records of an offline run: LevelDB's log format in 32 kB blocks, after W&B's 7-byte header."""
    (path,) = folder.glob("*.wandb")
    data = path.read_bytes()
    assert data[:4] in (b":W&B", b"")
    position, parts = 7, b""
    while position + 7 <= len(data):
        room = 32768 - position % 32768
        if room < 7:
            position += room
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        part = data[position + 7 : position + 7 + length]
        if len(part) < length:  # still being written
            return
        parts += part
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def key(item):
    return item.key or "/".join(item.nested_key)


def history(folder):
    """What was logged, one mapping a call, without W&B's own keys."""
    steps = []
    for record in records(folder):
        if record.WhichOneof("record_type") == "history":
            items = {key(item): json.loads(item.value_json) for item in record.history.item}
            steps.append({name: value for name, value in items.items() if not name.startswith("_")})
    return steps


def summary(folder):
    """What W&B shows as the result of a run."""
    updates = [
        record.summary.update for record in records(folder) if record.WhichOneof("record_type") == "summary"
    ]
    return {key(item): json.loads(item.value_json) for update in updates for item in update}


def one(folder, kind):
    found = (getattr(record, kind) for record in records(folder) if record.WhichOneof("record_type") == kind)
    return next(found)


def logged_tables(folder):
    found = [
        json.loads(path.read_text()) for path in (folder / "files" / "media" / "table").rglob("*.table.json")
    ]
    return sorted(found, key=lambda table: table["data"])


def test_two_jobs_of_one_process_are_two_offline_runs_with_all_their_scores(tmp_path, cfg):
    environment = {name: value for name, value in os.environ.items() if name.startswith("WANDB_MODE")}
    first, second = (
        a_run(tmp_path, digest, seed=seed) for seed, digest in enumerate(["aaaaaaaaaa", "bbbbbbbbbb"])
    )
    for number, run in enumerate([first, second]):
        with open_loggers(cfg, run) as loggers:
            loggers[1].log_metrics({"train/loss": 3.0}, step=10)
            log_evaluation(loggers, scores("validation", 20, 50.0 + number), step=20)
            log_evaluation(loggers, scores("validation", 40, 60.0 + number), step=40)

    for number, run in enumerate([first, second]):
        (folder,) = offline_runs(run)
        description = one(folder, "run")
        assert description.run_id == run.id
        assert description.display_name == f"flix-joint s{number}"
        assert (description.run_group, description.job_type) == ("flix-joint", "joint")
        assert list(description.tags) == ["FLix", "joint", "table1"]
        config = {key(item): json.loads(item.value_json) for item in description.config.update}
        assert config["flix"] == {"name": "FLix", "dropout": 0.7}
        assert config["seed"] == number

        scalars = [step for step in history(folder) if "val/ner/mean" in step]
        assert [step["trainer/global_step"] for step in scalars] == [20, 40]
        assert [step["val/ner/am/span_f1"] for step in scalars] == [50 + number, 60 + number]
        assert [step["val/ner/sw/span_f1"] for step in scalars] == [60 + number, 70 + number]
        assert [step["val/ner/mean"] for step in scalars] == [55 + number, 65 + number]
        assert [step["val/mean"] for step in scalars] == [55 + number, 65 + number]

        columns = ["step", "split", "task", "language", "seen", "active", "metric", "value", "n"]
        for step, value, table in zip((20, 40), (50, 60), logged_tables(folder), strict=True):
            assert table["columns"] == columns
            assert table["data"] == [
                [step, "validation", "ner", "am", "seen", "all", "span_f1", value + number, 100],
                [step, "validation", "ner", "sw", "seen", "all", "span_f1", value + 10 + number, 100],
            ]
        assert one(folder, "exit").exit_code == 0
    assert {name: value for name, value in os.environ.items() if name.startswith("WANDB_MODE")} == environment


def csv_rows(path):
    with path.open(newline="") as file:
        return [{name: text for name, text in row.items() if text} for row in csv.DictReader(file)]


def test_the_csv_holds_scalars_that_come_at_different_steps(tmp_path, cfg):
    del cfg["wandb"]
    run = a_run(tmp_path, "0123456789")
    path = run.metrics / "version_0" / "metrics.csv"
    expected = [
        {"step": "10", "train/loss": "3.0"},
        {
            "step": "20",
            "val/ner/am/span_f1": "50.0",
            "val/ner/sw/span_f1": "60.0",
            "val/ner/mean": "55.0",
            "val/mean": "55.0",
        },
        {
            "step": "30",
            "test/ner/am/span_f1": "40.0",
            "test/ner/sw/span_f1": "50.0",
            "test/ner/mean": "45.0",
            "test/mean": "45.0",
        },
        {"step": "30", "train/loss": "2.0"},
    ]
    with open_loggers(cfg, run) as loggers:
        loggers[0].log_metrics({"train/loss": 3.0}, step=10)
        log_evaluation(loggers, scores("validation", 20, 50.0), step=20)
        log_evaluation(loggers, scores("test", 30, 40.0), step=30)
        assert csv_rows(path) == expected[:3]
        loggers[0].log_metrics({"train/loss": 2.0}, step=30)
    assert csv_rows(path) == expected


def test_a_resumed_run_keeps_what_was_logged_before(tmp_path, cfg):
    run = a_run(tmp_path, "0123456789")
    for step in (20, 40):
        with open_loggers(cfg, run) as loggers:
            log_evaluation(loggers, scores("validation", step, 50.0), step=step)
    files = sorted(run.metrics.glob("*/metrics.csv"))
    steps = [[row["step"] for row in csv.DictReader(path.read_text().splitlines())] for path in files]
    assert steps == [["20"], ["40"]]
    assert all(one(folder, "run").run_id == "0123456789" for folder in offline_runs(run))


def test_a_test_is_one_table_and_each_control_is_another(tmp_path, cfg):
    run = a_run(tmp_path, "0123456789")
    rows = [
        *scores("test", 40, 50.0),
        *scores("test", 20, 80.0, task="semantic_parsing", languages=("fi",)),
        *scores("test", 40, 30.0, seen="unseen_language", languages=("ur",)),
        *scores("test", 40, 5.0, active="none"),
    ]
    with open_loggers(cfg, run) as loggers:
        log_evaluation(loggers, rows, step=60)
    (folder,) = offline_runs(run)
    (scalars,) = history(folder)
    assert {key: value for key, value in scalars.items() if "/scores/" not in key} == {
        "trainer/global_step": 60,
        "test/ner/am/span_f1": 50,
        "test/ner/sw/span_f1": 60,
        "test/ner/mean": 55,
        "test/semantic_parsing/fi/span_f1": 80,
        "test/semantic_parsing/mean": 80,
        "test/mean": 67.5,
        "test/ner/ur/span_f1": 30,
        "test/ner/mean_unseen_language": 30,
        "test/mean_unseen_language": 30,
        "test_none/ner/am/span_f1": 5,
        "test_none/ner/sw/span_f1": 15,
        "test_none/ner/mean": 10,
        "test_none/mean": 10,
    }
    found = {}
    for key in ("test/scores", "test_none/scores"):
        data = json.loads((folder / "files" / scalars[f"{key}/path"]).read_text())["data"]
        found[key] = [tuple(line[2:6]) for line in data]
    assert found == {
        "test/scores": [
            ("ner", "am", "seen", "all"),
            ("ner", "sw", "seen", "all"),
            ("semantic_parsing", "fi", "seen", "all"),
            ("ner", "ur", "unseen_language", "all"),
        ],
        "test_none/scores": [("ner", "am", "seen", "none"), ("ner", "sw", "seen", "none")],
    }


def interrupted():
    """Ask the run to leave in its fifth step."""
    step = FlixModule.training_step

    def training_step(self, batch):
        if self.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch)

    FlixModule.training_step = training_step


LOGGED = ["flix.controls=[[]]", "flix.dropout=0.4", "trainer.max_steps=6", "evaluation.every=4"]


@pytest.fixture(scope="module")
def in_wandb(tiny, tmp_path_factory):
    """The folder of a run that was interrupted and called again, and its folders of W&B."""
    folder = tmp_path_factory.mktemp("wandb")
    asked = [*tiny, *LOGGED, "logger=[csv,wandb]", "+trainer.log_every_n_steps=2"]
    commands.run(folder, "train.py", *asked, before=interrupted, code=143)
    commands.run(folder, "train.py", *asked)
    (path,) = folder.glob("outputs/runs/*")
    return path, sorted((path / "wandb").glob("offline-run-*"))


def test_a_run_in_wandb_has_a_name_that_says_its_settings(in_wandb):
    for folder in in_wandb[1]:
        description = one(folder, "run")
        name = "flix-tiny pretrained=base0 steps=6 batch_size=8 warmup_steps=2 lr=2e-2 p=0.4 rescale=false"
        assert description.display_name == f"{name} s0"
        assert (description.run_group, description.job_type) == (name, "tiny")


def test_logging_leaves_the_run_and_its_results_as_they_are(in_wandb, tiny, tmp_path):
    path, _ = in_wandb
    silent = tiny_runs.do([*tiny, *LOGGED, "logger=[]", "+trainer.log_every_n_steps=0"], tmp_path)
    assert silent.name == path.name
    found = [[row for row in tiny_runs.rows(one) if row["metric"] != "seconds"] for one in (silent, path)]
    assert found[0] == found[1]
    pools = [tiny_runs.checkpoint(one)["adapter"] for one in (silent, path)]
    assert all(torch.equal(pools[0][key], pool) for key, pool in pools[1].items())


def test_a_run_in_wandb_is_logged_once_and_by_its_steps(in_wandb):
    path, folders = in_wandb
    logged = [step for folder in folders for step in history(folder)]
    steps = {}
    for call in logged:
        for key in call:
            steps.setdefault(key, []).append(call["trainer/global_step"])
    assert "epoch" not in steps
    for key in ("loss", "learning_rate", "gradient_norm", "examples_per_second"):
        assert steps[f"train/{key}"] == [2, 4, 6], key
    for key in ("val/mean", "val/ner/mean", "val/scores/path"):
        assert steps[key] == [4, 6], key
    for key in ("test/mean", "test/ner/mean", "test/scores/path", "test_none/mean", "test_none/scores/path"):
        assert steps[key] == [6], key
    last = summary(folders[-1])
    facts = {row["metric"]: row["value"] for row in tiny_runs.rows(path, split="train")}
    assert {f"facts/{name}": value for name, value in facts.items()}.items() <= last.items()
    tested = [row["value"] for row in tiny_runs.rows(path, split="test", active="all", seen="seen")]
    assert last["test/mean"] == pytest.approx(sum(tested) / len(tested))
    assert last["train/learning_rate"] == pytest.approx(2e-2)
    assert last["train/examples_per_second"] > 0


def test_a_run_that_fails_is_finished_as_failed(tmp_path, cfg):
    run = a_run(tmp_path, "0123456789")

    def fail():
        with open_loggers(cfg, run) as loggers:
            log_evaluation(loggers, scores("validation", 20, 50.0), step=20)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    (folder,) = offline_runs(run)
    assert one(folder, "exit").exit_code != 0
    assert history(folder)[0]["val/ner/mean"] == 55
    assert (run.metrics / "version_0" / "metrics.csv").exists()


def test_a_run_that_something_else_left_open_is_not_taken_over(tmp_path, cfg):
    settings = wandb.Settings(silent=True, console="off")
    other = wandb.init(id="other", mode="offline", dir=tmp_path, settings=settings)
    try:
        run = a_run(tmp_path, "0123456789")
        with open_loggers(cfg, run):
            pass
        assert one(offline_runs(run)[0], "run").run_id == "0123456789"
        other.log({"still": "open"})
    finally:
        other.finish()


def test_disabled_writes_nothing_of_wandb(tmp_path, cfg, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run = a_run(tmp_path, "0123456789")
    with open_loggers(cfg, run) as loggers:
        log_evaluation(loggers, scores("validation", 20, 50.0), step=20)
    assert not (run.path / "wandb").exists()
    assert (run.metrics / "version_0" / "metrics.csv").exists()


def test_a_logger_that_fails_stops_nothing(tmp_path, cfg, caplog):
    """As when the disk of its files is full, or W&B's service is gone."""
    run = a_run(tmp_path, "0123456789")

    def fail(*_, **__):
        raise ConnectionResetError("Connection lost")

    with open_loggers(cfg, run) as loggers:
        loggers[1].experiment.log = fail
        log_evaluation(loggers, scores("validation", 20, 50.0), step=20)
    assert {record.message for record in caplog.records if record.levelname == "WARNING"} == {
        "logger.wandb fails, the run goes on: ConnectionResetError('Connection lost')"
    }
    assert csv_rows(run.metrics / "version_0" / "metrics.csv")[0]["val/ner/mean"] == "55.0"


def test_where_wandbs_service_is_killed_the_run_ends_as_it_would(tmp_path, cfg, caplog):
    """As on SLURM, which signals every process of a job; and the next run has another service."""
    run = a_run(tmp_path, "0123456789")

    def leave():
        with open_loggers(cfg, run) as loggers:
            children = subprocess.run(["pgrep", "-P", str(os.getpid()), "wandb-core"], stdout=subprocess.PIPE)
            for child in map(int, children.stdout.split()):
                os.kill(child, signal.SIGTERM)
                os.waitpid(child, 0)
            log_evaluation(loggers, scores("validation", 20, 50.0), step=20)
            sys.exit(143)

    with pytest.raises(SystemExit) as stop:
        leave()
    assert stop.value.code == 143
    assert "logger.wandb fails, the run goes on" in caplog.text
    assert csv_rows(run.metrics / "version_0" / "metrics.csv")[0]["val/ner/mean"] == "55.0"
    other = a_run(tmp_path, "aaaaaaaaaa")
    with open_loggers(cfg, other) as loggers:
        log_evaluation(loggers, scores("validation", 20, 50.0), step=20)
    assert history(offline_runs(other)[0])[0]["val/ner/mean"] == 55


def test_an_unknown_mode_is_one_line(tmp_path, cfg):
    cfg.wandb.mode = "ofline"
    with (
        pytest.raises(UserError, match=r"'ofline', expected one of offline, online, disabled"),
        open_loggers(cfg, a_run(tmp_path, "0123456789")),
    ):
        pass


def test_nothing_is_printed(tmp_path, cfg, capfd):
    with open_loggers(cfg, a_run(tmp_path, "0123456789")) as loggers:
        log_evaluation(loggers, scores("validation", 20, 50.0), step=20)
    assert capfd.readouterr() == ("", "")
