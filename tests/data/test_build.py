import logging
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from flix_lightning.common.errors import UserError
from flix_lightning.data import build
from flix_lightning.data.build import build_folder

HERE = Path(__file__).parent


def write(log: Path, seconds: float, path: Path, part: str) -> None:
    """Writes the file of a part, and a line to a log."""
    time.sleep(seconds)
    with log.open("a") as file:
        file.write(f"{part} {os.getpid()}\n")
    if part == "bad":
        raise UserError("a bad part")
    if part == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    path.write_text(part)


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def written(log):
    return sorted(line.split()[0] for line in log.read_text().splitlines())


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture(params=[1000, 2], ids=["alone", "with helpers"])
def parallel_from(request, monkeypatch):
    monkeypatch.setattr(build, "PARALLEL_FROM", request.param)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(3))
    return request.param


def test_one_file_a_part_made_once(tmp_path, log, parallel_from):
    parts = list("abcdef")
    for _ in range(2):
        build_folder(tmp_path / "made", parts, partial(write, log, 0), "testing")
    assert content(tmp_path / "made") == {f"{n:05}.arrow": part for n, part in enumerate(parts)}
    assert written(log) == parts
    processes = {line.split()[1] for line in log.read_text().splitlines()}
    assert (processes == {str(os.getpid())}) == (parallel_from > len(parts))


def test_an_error_keeps_what_was_finished_and_makes_no_folder(tmp_path, log, parallel_from):
    with pytest.raises(UserError, match="a bad part"):
        build_folder(tmp_path / "made", ["a", "b", "bad"], partial(write, log, 0), "testing")
    assert not (tmp_path / "made").exists()
    log.unlink()
    build_folder(tmp_path / "made", ["a", "b", "c"], partial(write, log, 0), "testing")
    assert written(log) == ["c"]
    assert sorted(content(tmp_path / "made").values()) == ["a", "b", "c"]


def test_a_helper_that_is_killed_is_one_line(tmp_path, log, monkeypatch):
    monkeypatch.setattr(build, "PARALLEL_FROM", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(2))
    with pytest.raises(UserError, match="was killed, perhaps for memory; call again to go on"):
        build_folder(tmp_path / "made", ["a", "killed", "b"], partial(write, log, 0), "testing")


def test_progress_is_logged(tmp_path, log, parallel_from, monkeypatch, caplog):
    monkeypatch.setattr(build, "INTERVAL", 0)
    with caplog.at_level(logging.INFO):
        build_folder(tmp_path / "made", list("abcd"), partial(write, log, 0), "testing")
    assert [message.partition("%")[0] for message in caplog.messages] == [
        f"testing: {share} " for share in (25, 50, 75, 100)
    ]


def start(folder, log, seconds, parallel_from):
    """Another process that makes the folder of 8 parts."""
    code = f"""
import os, signal, sys
from functools import partial
from pathlib import Path
from flix_lightning.data import build
from test_build import write
LOG = Path({str(log)!r})
if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, lambda *_: None)
    build.PARALLEL_FROM = {parallel_from}
    os.sched_getaffinity = lambda pid: range(2)
    build.build_folder(Path({str(folder)!r}), list("abcdefgh"), partial(write, LOG, {seconds}), "x")
"""
    script = log.with_name(f"{log.name}.py")
    script.write_text(code)
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen([sys.executable, str(script)], env=environment, start_new_session=True)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("parallel_from", [1000, 2], ids=["alone", "with helpers"])
def test_after_a_kill_the_finished_parts_are_kept_and_no_helper_is_left(tmp_path, log, parallel_from):
    process = start(tmp_path / "made", log, 0.2, parallel_from)
    draft = tmp_path / ".made.draft"
    wait_for(lambda: draft.is_dir() and len(list(draft.glob("0*.arrow"))) >= 2)
    helpers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    wait_for(lambda: not any(helper.is_running() and helper.status() != "zombie" for helper in helpers))
    kept = sorted(path.read_text() for path in draft.glob("0*.arrow"))
    assert 2 <= len(kept) < 8
    assert not (tmp_path / "made").exists()
    log.unlink()
    build_folder(tmp_path / "made", list("abcdefgh"), partial(write, log, 0), "testing")
    assert written(log) == sorted({*"abcdefgh"} - {*kept})
    assert sorted(content(tmp_path / "made").values()) == list("abcdefgh")


def test_a_signal_to_all_processes_that_only_the_first_handles_ends_no_helper(tmp_path, log):
    process = start(tmp_path / "made", log, 0.1, 2)
    wait_for(log.exists)
    os.killpg(process.pid, signal.SIGUSR1)
    assert process.wait() == 0
    assert written(log) == list("abcdefgh")


def test_another_process_waits_and_makes_nothing_twice(tmp_path, log, caplog):
    process = start(tmp_path / "made", log, 0.1, 1000)
    wait_for(log.exists)
    with caplog.at_level(logging.INFO):
        build_folder(tmp_path / "made", list("abcdefgh"), partial(write, log, 0), "testing")
    assert process.wait() == 0
    assert written(log) == list("abcdefgh")
    assert "waiting for another process: testing" in caplog.messages
