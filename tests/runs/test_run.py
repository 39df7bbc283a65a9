import errno
import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from flix_lightning.common.errors import UserError
from flix_lightning.runs import rows as results
from flix_lightning.runs.identity import hash_settings
from flix_lightning.runs.lock import RunBusy, lock_folder
from flix_lightning.runs.predictions import Prediction, read_predictions, write_predictions
from flix_lightning.runs.rows import Row
from flix_lightning.runs.run import Run

DATASET = {"task": "ner", "language": "sw", "seen": "seen"}
FACTS = {"run": "0123456789", "method": "FLix", "mixture": "joint", "seed": 0, "active": "all"}
FACTS |= {"metric": "span_f1", "value": 1.0, "n": 1, "step": 1}
CONFIG = {"flix": {"dropout": 0.7, "ranks": {"task": 4, "language": 2}}, "seed": 0, "cap": None, "on": True}


def test_the_id_is_ten_hexadecimal_digits_and_the_same_in_another_process():
    code = f"from flix_lightning.runs.identity import hash_settings; print(hash_settings({CONFIG!r}))"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert other.stdout.strip() == hash_settings(CONFIG)
    assert len(hash_settings(CONFIG)) == 10
    int(hash_settings(CONFIG), 16)


@pytest.mark.parametrize(
    "same",
    [
        dict(reversed(CONFIG.items())),
        CONFIG | {"seed": 0.0},
        CONFIG | {"flix": {"ranks": {"language": 2, "task": 4.0}, "dropout": 0.7}},
    ],
    ids=["order", "0.0", "nested"],
)
def test_what_decides_nothing_does_not_change_the_id(same):
    assert hash_settings(same) == hash_settings(CONFIG)


@pytest.mark.parametrize(
    "other",
    [
        CONFIG | {"seed": 1},
        CONFIG | {"cap": 0},
        CONFIG | {"on": 1},
        CONFIG | {"on": "true"},
        CONFIG | {"cap": float("inf")},
        CONFIG | {"flix": {"dropout": 0.5, "ranks": {"task": 4, "language": 2}}},
        CONFIG | {"flix": {"dropout": 0.7, "ranks": {"task": 2, "language": 4}}},
    ],
)
def test_what_decides_the_result_changes_the_id(other):
    assert hash_settings(other) != hash_settings(CONFIG)


def test_what_is_no_plain_data_is_refused():
    with pytest.raises(TypeError):
        hash_settings({"model": object()})


def test_a_run_is_finished_once_its_scores_stand(tmp_path):
    """A run that left results without scores, as a process that wrote for another did, is not finished."""
    cfg = OmegaConf.create({"evaluation": {"test": True}})
    run = Run(cfg, tmp_path / "flix-joint-0123456789")
    rows = {}
    for split in ("train", "validation", "test"):
        dataset = dict.fromkeys(("task", "language", "seen")) if split == "train" else DATASET
        rows[split] = Row(**FACTS, split=split, **dataset)
    assert not run.finished
    for splits, finished in {
        ("train",): False,
        ("train", "validation"): False,
        ("train", "test"): False,
        ("train", "validation", "test"): True,
    }.items():
        results.write(run.results, [rows[split] for split in splits])
        assert run.finished == finished, splits
    cfg.evaluation.test = False
    results.write(run.results, [rows["train"], rows["validation"]])
    assert run.finished


HOLDER = """
import sys, time
from pathlib import Path
from flix_lightning.runs.lock import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_keeps_others_out_until_its_process_is_killed(tmp_path):
    folder = Run(OmegaConf.create(), tmp_path / "run-0123456789")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder.path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunBusy, match="run-0123456789"), folder.lock():
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with folder.lock():
        pass


WRITER = """
import os, signal, sys
from pathlib import Path
from flix_lightning.common.files import write_atomic
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_atomic(Path(sys.argv[1]), "half")
"""


def test_what_a_killed_process_left_half_written_goes_with_the_next_lock(tmp_path):
    folder = Run(OmegaConf.create(), tmp_path / "run-0123456789")
    kept = [folder.path / ".lock", folder.path / ".mine", folder.path / "checkpoints/last.ckpt"]
    kept[-1].parent.mkdir(parents=True)
    for path in kept:
        path.write_text("whole")
    killed = subprocess.run([sys.executable, "-c", WRITER, str(kept[-1])])
    assert killed.returncode == -signal.SIGKILL
    assert len(list(kept[-1].parent.iterdir())) == 2
    with folder.lock():
        assert {path for path in folder.path.rglob("*") if path.is_file()} == set(kept)
    assert kept[-1].read_text() == "whole"


def test_a_lock_is_released_when_the_run_fails(tmp_path):
    folder = Run(OmegaConf.create(), tmp_path / "run-0123456789")
    with pytest.raises(ZeroDivisionError), folder.lock():
        raise ZeroDivisionError
    with folder.lock(), pytest.raises(RunBusy), lock_folder(tmp_path / "run-0123456789"):
        pass


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "outputs").write_text("a file where a folder should be")
    with (
        pytest.raises(UserError, match=r"cannot make the folder .*part of this path is a file"),
        lock_folder(tmp_path / "outputs" / "run-0"),
    ):
        pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_one_line(tmp_path, monkeypatch, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError, match=r"cannot lock .*\.lock .*output=FOLDER") as raised:
        lock_folder(tmp_path / "run-0").__enter__()
    assert not isinstance(raised.value, RunBusy)


def test_predictions_are_json_lines_in_their_own_script(tmp_path):
    path = tmp_path / "predictions" / "ner.am.jsonl"
    predictions = [Prediction("1", "LOC: አዲስ አበባ", "LOC: አዲስ አበባ"), Prediction("2", "two\nlines", "")]
    write_predictions(path, predictions)
    text = path.read_text(encoding="utf-8")
    assert [json.loads(line) for line in text.splitlines()] == [one._asdict() for one in predictions]
    assert read_predictions(path) == predictions
    assert "አዲስ" in text


def test_what_was_logged_again_after_a_resumption_counts(tmp_path):
    folder = Run(OmegaConf.create(), tmp_path / "flix-0a")
    files = {
        2: "epoch,step,train/loss\n0,9,0.7\n0,,\n0,19,0.6\n",  # an older run's, whose first step is 0
        10: "step,train/loss,val/mean\n20,0.5,\n20,,3\n30,0.4,\n",
    }
    for version, lines in files.items():
        path = folder.metrics / f"version_{version}/metrics.csv"
        path.parent.mkdir(parents=True)
        path.write_text(lines)
    assert folder.logged("train/loss") == [(10, 0.7), (20, 0.5), (30, 0.4)]
    assert folder.logged("no such") == []


def test_a_log_that_cannot_be_read_is_named(tmp_path):
    folder = Run(OmegaConf.create(), tmp_path / "flix-0a")
    path = folder.metrics / "version_0/metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text("step,train/loss\n9,none\n")
    with pytest.raises(UserError, match=r"version_0/metrics.csv: .*delete it"):
        folder.logged("train/loss")
