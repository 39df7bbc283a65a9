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
import wandb
from omegaconf import OmegaConf
from wandb.proto.wandb_internal_pb2 import Record

from flix_lightning.common.errors import UserError
from flix_lightning.runs.rows import Row
from flix_lightning.runs.run import Run
from flix_lightning.training.loggers import log_evaluation, open_loggers

CONF = Path(__file__).parents[2] / "conf" / "logger"


@pytest.fixture
def cfg(monkeypatch):
    """The two loggers as `conf/logger` ships them, with nothing of W&B in the environment."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    return OmegaConf.merge(OmegaConf.load(CONF / "csv.yaml"), OmegaConf.load(CONF / "wandb.yaml"))


def a_run(tmp_path, digest, **config):
    cfg = {"flix": {"name": "FLix", "dropout": 0.7}, "mixture": {"name": "joint"}, "tables": ["table1"]}
    return Run(OmegaConf.create({**cfg, **config}), tmp_path / f"flix-joint-{digest}")


def scores(split, step, value, seen="seen", active="all", languages=("am", "sw")):
    return [
        Row(
            run="0123456789",
            method="FLix",
            mixture="joint",
            seed=0,
            split=split,
            task="ner",
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
        assert description.run_group == "joint"
        assert description.job_type == "train"
        assert list(description.tags) == ["FLix", "joint", "table1"]
        config = {key(item): json.loads(item.value_json) for item in description.config.update}
        assert config["flix"] == {"name": "FLix", "dropout": 0.7}
        assert config["seed"] == number

        scalars = [step for step in history(folder) if "val/ner/mean" in step]
        assert [step["trainer/global_step"] for step in scalars] == [20, 40]
        assert [step["val/ner/am/span_f1"] for step in scalars] == [50 + number, 60 + number]
        assert [step["val/ner/sw/span_f1"] for step in scalars] == [60 + number, 70 + number]
        assert [step["val/ner/mean"] for step in scalars] == [55 + number, 65 + number]

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
        {"step": "20", "val/ner/am/span_f1": "50.0", "val/ner/sw/span_f1": "60.0", "val/ner/mean": "55.0"},
        {"step": "30", "test/ner/am/span_f1": "40.0", "test/ner/sw/span_f1": "50.0", "test/ner/mean": "45.0"},
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


def test_other_evaluations_stand_apart_from_the_selected_scores(tmp_path, cfg):
    run = a_run(tmp_path, "0123456789")
    rows = [
        *scores("test", 40, 50.0),
        *scores("test", 40, 30.0, seen="unseen_language", languages=("ur",)),
        *scores("test", 40, 5.0, active="none"),
    ]
    with open_loggers(cfg, run) as loggers:
        log_evaluation(loggers, rows, step=40)
    (folder,) = offline_runs(run)
    scalars = history(folder)[0]
    del scalars["trainer/global_step"]
    assert scalars == {
        "test/ner/am/span_f1": 50,
        "test/ner/sw/span_f1": 60,
        "test/ner/mean": 55,
        "test/ner/ur/span_f1": 30,
        "test/ner/mean_unseen_language": 30,
        "test_none/ner/am/span_f1": 5,
        "test_none/ner/sw/span_f1": 15,
        "test_none/ner/mean": 10,
    }
    (table,) = logged_tables(folder)
    assert len(table["data"]) == 5


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
