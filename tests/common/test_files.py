"""Files are hashed as they are now, and folders are made whole or not at all."""

import hashlib
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from folders import made

from flix_lightning.common import files
from flix_lightning.common.errors import UserError
from flix_lightning.common.files import atomic_folder, make_once, sha256


def test_a_hash_is_of_the_content_as_it_is_now(tmp_path):
    """Though two changes within a clock tick leave the same facts behind."""
    path = tmp_path / "file"
    for n in range(200):
        path.write_text(f"{n:03}")
        assert sha256(path) == hashlib.sha256(f"{n:03}".encode()).hexdigest()


def test_what_stays_is_read_once(tmp_path, monkeypatch):
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_text("a")
    other.write_text("b")
    later = files.time.time() + 10
    monkeypatch.setattr(files.time, "time", lambda: later)
    first = sha256(path)
    monkeypatch.setattr(files.hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert sha256(path) == first
    monkeypatch.undo()
    monkeypatch.setattr(files.time, "time", lambda: later)
    facts = path.stat()
    os.replace(other, path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # as rsync and cp -p do
    assert sha256(path) == hashlib.sha256(b"b").hexdigest()


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: cannot be read \(No such file"):
        sha256(tmp_path / "nowhere")


def write_and_die(draft):
    (draft / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)


def contents(folder):
    return sorted(path.name for path in made(folder))


def test_a_folder_is_made_once_and_nothing_stays_of_a_killed_process(tmp_path):
    folder = tmp_path / "base" / "model-1"
    killed = multiprocessing.get_context("spawn").Process(target=make_once, args=(folder, write_and_die))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    written = []

    def write(draft):
        assert not list(draft.iterdir())
        written.append(draft)
        (draft / "whole").write_text("x")

    with ThreadPoolExecutor() as pool:
        assert {*pool.map(lambda _: make_once(folder, write), range(3))} == {folder}
    assert len(written) == 1
    assert contents(folder.parent) == ["model-1"]
    assert contents(folder) == ["whole"]


def test_a_folder_that_could_not_be_made_is_not_there(tmp_path):
    def write(draft):
        (draft / "half").write_text("x")
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        make_once(tmp_path / "made", write)
    assert contents(tmp_path) == []


def with_both(folder):
    with atomic_folder(folder) as mine, atomic_folder(folder) as theirs:
        (mine / "mine").write_text("x")
        (theirs / "theirs").write_text("x")


def test_a_folder_that_another_process_made_meanwhile_stays_as_it_is(tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(UserError, match="out: another process has just made it"):
        with_both(folder)
    assert contents(folder) == ["theirs"]
    assert contents(tmp_path) == ["out"]
