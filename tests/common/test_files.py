"""A file's hash is that of its content now, though it is read once."""

import hashlib
import os

import pytest

from flix_lightning.common import files
from flix_lightning.common.errors import UserError
from flix_lightning.common.files import sha256


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
