import codecs
import hashlib
import json
import re

import pytest
from folders import line_of, write_split
from hypothesis import given
from hypothesis import strategies as st

from flix_lightning.common.errors import UserError
from flix_lightning.data.jsonl import MAX_LINE, read_objects, split_lines
from flix_lightning.data.layout import Layout


@pytest.mark.parametrize(
    ("task", "stem"),
    [(task, "sw") for task in ("ner", "semantic_parsing", "qa_in_lang", "qa_cross_lang")]
    + [("translation", "en2sw")],
)
def test_where_files_are(tmp_path, task, stem):
    path = tmp_path / task / "validation" / f"{stem}.jsonl"
    layout = Layout(tmp_path)
    assert layout.path(task, "validation", "sw") == path
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert layout.datasets("validation") == [(task, "sw")]


def test_reads_lines_in_order_with_ids_and_every_key(tmp_path):
    lines = [line_of("ner", "Ọlámídé\u2028 wá", "PER: Ọlámídé", source="news"), line_of("ner", "yes", "")]
    write_split(tmp_path, "ner", "train", "yo", lines)
    first, second = Layout(tmp_path).read("ner", "train", "yo")
    assert (first.id, second.id) == ("ner/yo/train/1", "ner/yo/train/2")
    assert first.input.endswith(": Ọlámídé\u2028 wá")
    assert (first.target, second.target) == ("PER: Ọlámídé", "")
    assert first.attributes == lines[0]


GOOD = json.dumps({"input": "a", "target": "b"}).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"sw\.jsonl: the file is empty"),
        (GOOD + b"\n{'input'}\n", r"sw\.jsonl:2: not JSON"),
        (b"\n \r\n", r"sw\.jsonl: the file is empty"),
        (codecs.BOM_UTF8 + b"\n", r"sw\.jsonl: the file is empty"),
        (GOOD + b"\n\n \n" + GOOD, r"sw\.jsonl:2: a blank line before the end"),
        (b'["a"]\n', r"sw\.jsonl:1: a JSON list where an object"),
        (
            GOOD + b'\n{"input": "a"}',
            r"sw\.jsonl:2: lacks the key 'target'; semantic_parsing needs input, target",
        ),
        (b'{"input": "a", "target": 3}', r"sw\.jsonl:1: the value of 'target' is 3; a string"),
        (b'{"input": null, "target": "b"}', r"sw\.jsonl:1: the value of 'input' is null; a string"),
        (GOOD + b'\n{"input": "\xff", "target": "b"}', r"sw\.jsonl:2: not UTF-8 \(byte 12 "),
        (b'{"input": "\\ud800", "target": "b"}', r"sw\.jsonl:1: the value of 'input' holds half a surrogate"),
        (
            b'{"input": "a", "target": "b", "site": ["\\uDC00"]}',
            r"sw\.jsonl:1: the value of 'site' holds half",
        ),
        (
            GOOD + b'\n{"input": "a", "target": "b", "\\ud83d": 1}',
            r"sw\.jsonl:2: the key '\\ud83d' holds half",
        ),
        (codecs.BOM_UTF8 + b'{"input": "\xff"}', r"sw\.jsonl:1: not UTF-8 \(byte 15 "),
        (
            GOOD + b'\n{"input": ["a"], "target": "b"}',
            r"sw\.jsonl:2: the value of 'input' is \[\"a\"\]; a string",
        ),
        (GOOD + b'\n{"input": "a\0", "target": "b"}', r"sw\.jsonl:2: a NUL byte \(byte 13 of the line\)"),
        (GOOD + b"\n" + bytes(100), r"sw\.jsonl:2: a NUL byte \(byte 1 of"),
        (GOOD.decode().encode("utf-16"), r"sw\.jsonl:1: (not UTF-8|a NUL byte)"),
        (GOOD + b"\n" + codecs.BOM_UTF8 + GOOD, r"sw\.jsonl:2: not JSON"),
        (GOOD + b"\r" + GOOD, r"sw\.jsonl:1: not JSON \(Extra data"),
        (GOOD + b"\n" + b"[" * 100_000, r"sw\.jsonl:2: JSON that cannot be read"),
        (b'{"input": "a", "target": "b", "n": ' + b"1" * 5000 + b"}", r"sw\.jsonl:1: JSON that cannot be"),
        (GOOD + b"\n" + b" " * (MAX_LINE + 1) + GOOD, r"sw\.jsonl:2: a line of more than 16 MiB"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path, content, message):
    path = tmp_path / "semantic_parsing/train/sw.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(Layout(tmp_path).read("semantic_parsing", "train", "sw"))
    assert "\n" not in str(caught.value)


LINE = '{"input": "a é 東", "target": "b"}'


@pytest.mark.parametrize("end", range(1, len(LINE)))
@pytest.mark.parametrize("line_end", ["", "\n", "\r\n", " \n"])
def test_the_column_is_where_a_line_is_cut_off(tmp_path, end, line_end):
    path = write_split(tmp_path, "semantic_parsing", "train", "sw", [json.loads(LINE)])
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(LINE[:end] + line_end)
    column = len(LINE[:end].rstrip()) + 1
    with pytest.raises(UserError, match=rf"sw\.jsonl:2: not JSON \(cut off at column {column}\);"):
        list(Layout(tmp_path).read("semantic_parsing", "train", "sw"))


@pytest.mark.parametrize("place", [0, 8, 17, LINE.rindex(":")])
def test_the_column_is_where_a_character_is_lacking(tmp_path, place):
    path = write_split(tmp_path, "semantic_parsing", "train", "sw", [json.loads(LINE)])
    wrong = LINE[:place] + "?" + LINE[place:]
    path.write_text(f"\ufeff{wrong}\n{LINE}\n", encoding="utf-8")
    with pytest.raises(UserError, match=rf"sw\.jsonl:1: not JSON \(.*, column {place + 1}\);"):
        list(Layout(tmp_path).read("semantic_parsing", "train", "sw"))


@pytest.mark.parametrize("end", ["\n", "\r\n\r\n", "\n \t\n\n", "\n" * 1000])
def test_blank_lines_at_the_end_are_no_lines(tmp_path, end):
    lines = [line_of("ner", "a", "b"), line_of("ner", "", "")]
    path = write_split(tmp_path, "ner", "train", "yo", lines)
    as_written = list(Layout(tmp_path).read("ner", "train", "yo"))
    with path.open("a", newline="") as file:
        file.write(end)
    assert list(Layout(tmp_path).read("ner", "train", "yo")) == as_written


def test_hidden_files_are_no_data(tmp_path):
    write_split(tmp_path, "ner", "test", "sw", [line_of("ner", "a", "b")])
    write_split(tmp_path, "translation", "test", "sw", [line_of("translation", "a", "b")])
    for name in ("._sw", ".sw", "._en2sw", ".~lock.sw"):
        for task in ("ner", "translation", "qa_in_lang"):
            write_split(tmp_path, task, "test", "sw", []).rename(tmp_path / task / "test" / f"{name}.jsonl")
    for task, language in (("ner", "sw"), ("translation", "sw")):
        write_split(tmp_path, task, "test", language, [line_of(task, "a", "b")])
    assert Layout(tmp_path).datasets("test") == [("ner", "sw"), ("translation", "sw")]


@pytest.mark.parametrize(
    ("begin", "end"),
    [(b"", b"\r\n"), (codecs.BOM_UTF8, b"\n"), (codecs.BOM_UTF8, b"\r\n")],
    ids=["Windows", "BOM", "both"],
)
def test_what_windows_editors_add_is_no_part_of_the_data(tmp_path, begin, end):
    lines = [line_of("ner", "Ọlámídé wá\r", "PER: Ọlámídé"), line_of("ner", "", "")]
    path = write_split(tmp_path, "ner", "train", "yo", lines)
    as_written = list(Layout(tmp_path).read("ner", "train", "yo"))
    path.write_bytes(begin + path.read_bytes().replace(b"\n", end))
    assert list(Layout(tmp_path).read("ner", "train", "yo")) == as_written


def test_a_line_of_2_mb_is_a_line_like_any_other(tmp_path):
    lines = [line_of("ner", text, "PER: x") for text in ("a", "b " * 2**20, "c")]
    write_split(tmp_path, "ner", "train", "yo", lines)
    found = list(Layout(tmp_path).read("ner", "train", "yo"))
    assert [example.attributes for example in found] == lines


@given(
    targets=st.lists(st.text(max_size=8), min_size=1, max_size=20),
    size=st.integers(1, 200),
    line_end=st.sampled_from(["\n", "\r\n"]),
    last=st.sampled_from(["", "\n", "\n\n \n"]),
)
def test_the_spans_of_a_file_are_its_lines(tmp_path_factory, targets, size, line_end, last):
    path = tmp_path_factory.mktemp("spans") / "sw.jsonl"
    lines = [json.dumps({"text": "{}", "target": target}, ensure_ascii=len(target) % 2) for target in targets]
    path.write_text(line_end.join(lines) + last, encoding="utf-8", newline="")
    spans = split_lines(path, size)
    assert len(spans) <= len(lines)
    assert [one for span in spans for one in read_objects(path, span)] == list(read_objects(path))


def test_a_large_file_has_many_spans_of_like_size(tmp_path):
    path = write_split(tmp_path, "ner", "train", "yo", [line_of("ner", "x" * 50, "")] * 1000)
    sizes = [(span.stop or path.stat().st_size) - span.start for span in split_lines(path, 2000)]
    assert len(sizes) > 30
    assert max(sizes) < 4000


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "ner/test/sw.jsonl"))):
        list(Layout(tmp_path).read("ner", "test", "sw"))


def test_fingerprint_is_of_content_and_place_below_the_root(tmp_path):
    def build(root, content="b"):
        return [
            write_split(root, "ner", split, "sw", [line_of("ner", "a", content)])
            for split in ("train", "test")
        ]

    def fingerprint(root, paths):
        return Layout(root).fingerprint(paths)

    one, same, other = tmp_path / "one", tmp_path / "same", tmp_path / "other"
    paths = build(one)
    assert fingerprint(one, paths) == fingerprint(same, build(same))
    assert fingerprint(one, paths) != fingerprint(other, build(other, "c"))
    assert fingerprint(one, paths) != fingerprint(one, paths[:1])
    assert len(bytes.fromhex(fingerprint(one, paths))) == hashlib.sha256().digest_size
    with pytest.raises(UserError, match=r"nowhere\.jsonl"):
        fingerprint(one, [one / "nowhere.jsonl"])
