import hashlib
import re
import subprocess
import sys

import pytest
from archives import of_folder
from folders import line_of, write_dataset, write_split
from servers import serving

from flix_lightning.common.errors import UserError
from flix_lightning.data import download as downloading
from flix_lightning.data.download import NER_LANGUAGES, download
from flix_lightning.data.layout import Layout

SPLITS = ("train", "validation", "test")


@pytest.fixture
def published(tmp_path):
    """What a server holds, as XTREME-UP and MasakhaNER-X are published: path -> bytes."""
    root = tmp_path / "published"
    for task, language in (
        ("translation", "pt"), ("semantic_parsing", "pt_br"), ("qa_in_lang", "sw"), ("qa_cross_lang", "bn"),
        ("asr", "sw"),
    ):  # fmt: skip
        write_dataset(root, task, language, 20)
    archive = of_folder(tmp_path / "archive", root, "xtreme_up_v1.1")
    files = {"x/data.jsonl.tgz": archive.read_bytes()}
    for split in SPLITS:
        for language in NER_LANGUAGES:
            path = write_split(tmp_path / "ner", "ner", split, language, [line_of("ner", language, split)])
            files[f"ner/{split}/{language}.jsonl"] = path.read_bytes()
    return files


@pytest.fixture
def server(published, monkeypatch):
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    monkeypatch.setenv("no_proxy", "*")
    with serving(published) as server:
        yield server


def get(server, folder):
    return download(folder, f"{server.url}/x/data.jsonl.tgz", f"{server.url}/ner")


def test_ner_lies_beside_the_other_tasks(server, tmp_path, capsys):
    server.faults = [500, 100, (503,)]
    whole = get(server, tmp_path / "out")
    root = whole / "xtreme_up_v1.1"
    assert {path.name for path in whole.iterdir()} == {"xtreme_up_v1.1"}
    expected = {"translation/en2pt", "semantic_parsing/pt_br", "qa_in_lang/sw", "qa_cross_lang/bn", "asr/sw"}
    expected |= {f"ner/{language}" for language in NER_LANGUAGES}
    for split in SPLITS:
        found = {f"{path.parts[-3]}/{path.stem}" for path in root.glob(f"*/{split}/*.jsonl")}
        assert found == expected
        (example,) = Layout(root).read("ner", split, "yo")
        assert (example.attributes["text"], example.target) == ("yo", split)
    assert len(list(Layout(root).read("translation", "test", "pt"))) == 20
    printed = capsys.readouterr().out
    content = server.files["x/data.jsonl.tgz"]
    digest = hashlib.sha256(content).hexdigest()
    assert f"data.jsonl.tgz: {len(content):,} bytes, SHA-256 {digest}" in printed
    assert "60 files, SHA-256 of all " in printed
    requests = len(server.requested)
    assert requests == 1 + 60 + len([500, 100, 503])
    assert get(server, tmp_path / "out") == whole
    assert len(server.requested) == requests


def test_a_later_call_downloads_only_what_is_not_complete(server, tmp_path):
    server.files.pop("ner/test/zu.jsonl")
    with pytest.raises(UserError, match=r"ner/test/zu\.jsonl: cannot be downloaded \(404 .*; call again"):
        get(server, tmp_path)
    assert not (tmp_path / "xtreme_up").exists()
    server.files["ner/test/zu.jsonl"] = server.files["ner/test/yo.jsonl"]
    server.requested.clear()
    get(server, tmp_path)
    assert server.requested == ["ner/test/zu.jsonl"]


@pytest.mark.parametrize("fault", [0, 100, (503,)])
def test_a_server_that_fails_each_time_is_given_up_and_leaves_no_part(server, tmp_path, fault):
    server.faults = [fault] * 100
    with pytest.raises(UserError, match=rf"^{server.url}/x/data\.jsonl\.tgz: cannot be downloaded") as caught:
        get(server, tmp_path)
    assert "\n" not in str(caught.value)
    assert len(server.requested) == 1 + downloading.RETRIES
    assert not list((tmp_path / "downloads").iterdir())


def test_no_server(tmp_path, server):
    with serving({}) as gone:
        url = gone.url
    with pytest.raises(UserError, match=rf"^{url}/x\.tgz: cannot be downloaded .*refused"):
        download(tmp_path, f"{url}/x.tgz", url)


PAGE = b"<html>Please log in</html>"
WRONG = {
    "a page for the archive": ("x/data.jsonl.tgz", lambda _: PAGE, "not an archive that can be read"),
    "half of the archive": ("x/data.jsonl.tgz", lambda whole: whole[: len(whole) // 2], "cut off or damaged"),
    "a damaged archive": ("x/data.jsonl.tgz", lambda whole: whole[:-8] + bytes(8), "cut off or damaged"),
    "a page for NER": ("ner/validation/ha.jsonl", lambda _: PAGE, "1: not JSON"),
    "no NER": ("ner/validation/ha.jsonl", lambda _: b'{"text": "a"}\n', "1: lacks the key 'target'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_not_what_it_should_be_is_not_kept(server, tmp_path, name):
    path, spoil, message = WRONG[name]
    right = server.files[path]
    server.files[path] = spoil(right)
    with pytest.raises(UserError, match=rf"/{path.rpartition('/')[2]}:.*{message}.*; it is deleted"):
        get(server, tmp_path)
    assert not (tmp_path / "xtreme_up").exists()
    server.files[path] = right
    assert get(server, tmp_path).is_dir()


def test_the_command(server, tmp_path):
    options = ["--archive", f"{server.url}/x/data.jsonl.tgz", "--ner", f"{server.url}/ner"]

    def call():
        command = [sys.executable, "-m", "flix_lightning.data.download", str(tmp_path / "out"), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    whole = server.files["x/data.jsonl.tgz"]
    write_dataset(tmp_path / "other", "qa_in_lang", "sw", 1)
    other = of_folder(tmp_path / "other.tgz", tmp_path / "other", "top")
    server.files["x/data.jsonl.tgz"] = other.read_bytes()
    first = call()
    assert first.returncode == 1
    assert downloading.LICENCES in first.stdout
    (line,) = first.stderr.splitlines()
    assert re.fullmatch(r"error: .*/data\.jsonl\.tgz: has no train files of .*", line)
    assert not (tmp_path / "out/xtreme_up").exists()
    server.files["x/data.jsonl.tgz"] = whole
    second = call()
    assert second.returncode == 0, second.stderr
    assert f"data.root={tmp_path / 'out/xtreme_up'}" in second.stdout
