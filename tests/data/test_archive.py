import gzip
import logging
import multiprocessing
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from archives import member, of_folder, write_tar
from folders import made, write_dataset

from flix_lightning.common.errors import UserError
from flix_lightning.data import archive as source
from flix_lightning.data.archive import open_layout
from flix_lightning.data.layout import Layout

LINE = b'{"text": "a", "target": ""}\n'
GOOD = member("top/ner/train/sw.jsonl", LINE)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "folder"
    write_dataset(root, "ner", "sw", 3)
    write_dataset(root, "translation", "pt", 2)
    return root


def content(layout):
    """What a run sees of a layout: which files it has, and the hash that decides the run."""
    paths = sorted(layout.root.rglob("*.jsonl"))
    return [path.relative_to(layout.root).as_posix() for path in paths], layout.fingerprint(paths)


@pytest.mark.parametrize(
    ("name", "mode", "top"),
    [
        ("data.tgz", "w:gz", Path("xtreme_up_v1.1")),
        ("data.tar.gz", "w:gz", None),
        ("data.tar.xz", "w:xz", Path("x")),
        ("data", "w:gz", Path("./x")),  # known by what it is, not by its name
    ],
)
def test_an_archive_is_its_folder(folder, tmp_path, name, mode, top):
    archive = of_folder(tmp_path / name, folder, top, mode)
    layout = open_layout(str(archive), tmp_path / "out")
    assert content(layout) == content(Layout(folder))
    (unpacked,) = made(tmp_path / "out")
    assert re.fullmatch(r"data-[0-9a-f]{16}", unpacked.name)


def test_hidden_files_of_an_archive_are_not_unpacked(folder, tmp_path):
    for name in (
        "._top",
        "top/._ner",
        "top/ner/train/._sw.jsonl",
        "top/ner/test/.DS_Store",
        "top/.git/config",
    ):
        path = tmp_path / "mac" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0\5\26\7Mac OS X")
    shutil.copytree(folder, tmp_path / "mac/top", dirs_exist_ok=True)
    layout = open_layout(of_folder(tmp_path / "data.tgz", tmp_path / "mac", None), tmp_path / "out")
    assert content(layout) == content(Layout(folder))
    assert {path.suffix for path in layout.root.parent.rglob("*") if path.is_file()} == {".jsonl"}


def test_a_folder_is_itself_or_the_one_in_it(folder, tmp_path):
    outer = tmp_path / "outer"
    (outer / "docs").mkdir(parents=True)
    (outer / "README").write_text("ner")
    folder.rename(outer / "xtreme_up_v1.1")
    for given in (outer, outer / "xtreme_up_v1.1"):
        assert open_layout(given, tmp_path / "out").root == outer / "xtreme_up_v1.1"
    assert not (tmp_path / "out").exists()


def test_unpacked_once_and_again_when_its_content_is_another(folder, tmp_path, caplog):
    archive, out = tmp_path / "data.tgz", tmp_path / "out"
    with caplog.at_level(logging.INFO):
        first = open_layout(of_folder(archive, folder, None), out).root
        written = (first / "ner/train/sw.jsonl").stat().st_mtime_ns
        moved = archive.rename(tmp_path / "data.tar.gz")
        assert open_layout(moved, out).root == first
        assert (first / "ner/train/sw.jsonl").stat().st_mtime_ns == written
        assert len(caplog.messages) == 1
        write_dataset(folder, "ner", "sw", 4)
        assert open_layout(of_folder(archive, folder, None), out).root != first
    assert len(caplog.messages) == 2


def test_two_processes_unpack_at_once(folder, tmp_path):
    archive = of_folder(tmp_path / "data.tgz", folder, None)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        roots = pool.starmap(_root, [(archive, tmp_path / "out")] * 4)
    assert len({*roots}) == 1
    assert content(Layout(roots[0])) == content(Layout(folder))
    assert len(made(tmp_path / "out")) == 1


def _root(archive, out):
    return open_layout(archive, out).root


def truncated(path, share):
    whole = write_tar(path, [member("top/ner/train/sw.jsonl", LINE * 50_000), GOOD], "w:gz").read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


def flipped(path):
    """A bit of gzip's checksum, past all that tar itself reads."""
    whole = bytearray(write_tar(path, [GOOD], "w:gz").read_bytes())
    whole[-8] ^= 1
    path.write_bytes(whole)
    return path


def written(path, content):
    path.write_bytes(content)
    return path


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ner/train/sw.jsonl", LINE)
    return path


def sub(path, name):
    (path / name).mkdir(parents=True)
    return path


def link(name, target, type):
    return member(name, linkname=target, type=type)


ANOTHER_KIND = r"not an archive that can be read; a \.tgz, \.tar\.gz or \.tar\.xz is needed"
DAMAGED = r"cut off or damaged \(.+\); get the archive again"
LINKED = r"is a link or a device; only files can be unpacked"

#: What makes something bad at a path, and what is said of it.
BAD = {
    "nothing": (lambda path: path, r"no such folder or archive; data\.root is a folder of <task>/<split>/"),
    "empty file": (lambda path: written(path, b""), ANOTHER_KIND),
    "zip": (zipped, ANOTHER_KIND),
    "bare tar": (lambda path: write_tar(path, [GOOD], "w"), ANOTHER_KIND),
    "data file": (lambda path: written(path, LINE), ANOTHER_KIND),
    "no tar in it": (lambda path: written(path, gzip.compress(LINE)), DAMAGED),
    "cut to 10 bytes": (lambda path: truncated(path, 0.01), DAMAGED),
    "cut to half": (lambda path: truncated(path, 0.5), DAMAGED),
    "cut at its end": (lambda path: truncated(path, 0.995), DAMAGED),
    "xz cut": (
        lambda path: written(path, write_tar(path, [GOOD], "w:xz").read_bytes()[:-20]),
        DAMAGED,
    ),
    "bit flipped": (flipped, DAMAGED),
    "no layout": (
        lambda path: write_tar(path, [member("a/b/sw.jsonl", LINE), member("c.txt", LINE)], "w:gz"),
        r"no <task>/<train\|validation\|test>/<language>\.jsonl at its top .*; it holds a, c\.txt",
    ),
    "nothing in it": (lambda path: write_tar(path, [], "w:gz"), "it holds nothing"),
    "path upwards": (
        lambda path: write_tar(path, [GOOD, member("top/../../evil.jsonl", LINE)], "w:gz"),
        r"'top/\.\./\.\./evil\.jsonl' leads out of the target folder",
    ),
    "symbolic link out": (
        lambda path: write_tar(path, [GOOD, link("top/ner/x", "/etc", tarfile.SYMTYPE)], "w:gz"),
        f"'top/ner/x' {LINKED}",
    ),
    "symbolic link within": (
        lambda path: write_tar(path, [GOOD, link("top/ner/x", "train", tarfile.SYMTYPE)], "w:gz"),
        LINKED,
    ),
    "hard link": (
        lambda path: write_tar(path, [GOOD, link("x", "top/ner/train/sw.jsonl", tarfile.LNKTYPE)], "w:gz"),
        LINKED,
    ),
    "device": (lambda path: write_tar(path, [member("x", type=tarfile.FIFOTYPE)], "w:gz"), LINKED),
    "file below a file": (
        lambda path: write_tar(path, [GOOD, member(GOOD[0].name + "/x", LINE)], "w:gz"),
        r"Not a directory",
    ),
    "empty folder": (lambda path: sub(path, "."), "it holds nothing"),
    "wrong folders": (lambda path: sub(path, "sw/ner"), r"no <task>/.* with a task of ner, .*; it holds sw"),
    "a task's own folder": (lambda path: sub(path, "train"), "it holds train"),
    "splits of other names": (lambda path: sub(path, "ner/dev"), r"<train\|validation\|test>.*it holds ner"),
    "no files": (lambda path: sub(path, "ner/train"), "it holds ner"),
    "two layouts": (
        lambda path: [write_dataset(path / top, "ner", "sw", 1) for top in "ab"] and path,
        r"2 folders of it hold the layout \(a, b\); one is needed",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_source_is_one_clear_line_and_leaves_nothing(name, tmp_path):
    make, message = BAD[name]
    given = make(tmp_path / "given")
    unwritable = name == "file below a file"
    with pytest.raises(OSError if unwritable else UserError, match=message) as caught:
        open_layout(given, tmp_path / "out")
    assert "\n" not in str(caught.value)
    if not unwritable:
        assert str(caught.value).startswith(f"{given}: ")
        assert str(tmp_path / "out") not in str(caught.value)
    assert not list((tmp_path).rglob("*evil*"))
    assert not (tmp_path / "out").exists() or not made(tmp_path / "out")


def test_an_absolute_path_stays_within(tmp_path):
    archive = write_tar(tmp_path / "data.tgz", [GOOD, member(f"{tmp_path}/evil", LINE)], "w:gz")
    open_layout(archive, tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_a_python_that_cannot_unpack_safely_does_not(tmp_path, monkeypatch):
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(UserError, match=r"needs Python 3\.11\.4 or later; unpack it yourself"):
        open_layout(write_tar(tmp_path / "data.tgz", [GOOD], "w:gz"), tmp_path / "out")


@pytest.mark.parametrize(("limit", "value"), [("MAX_BYTES", 2**20), ("MAX_FILES", 3)])
def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(source, limit, value)
    many = [member(f"top/ner/train/{n}.jsonl", bytes(2**18)) for n in range(8)]
    archive = write_tar(tmp_path / "bomb.tgz", many, "w:gz")
    assert archive.stat().st_size < 2**14
    with pytest.raises(UserError, match="unpacks to more than"):
        open_layout(archive, tmp_path / "out")
    assert not made(tmp_path / "out")
