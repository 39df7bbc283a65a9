import json
import resource
import stat
from contextlib import contextmanager

import pytest

from flix_lightning.common.errors import UserError
from flix_lightning.runs import rows as results
from flix_lightning.runs.rows import Row

SCORE = {
    "run": "0123456789",
    "method": "FLix",
    "mixture": "joint",
    "seed": 0,
    "split": "test",
    "task": "ner",
    "language": "sw",
    "seen": "seen",
    "active": "all",
    "metric": "span_f1",
    "value": 71.25,
    "n": 100,
    "step": 600,
}
FACT = SCORE | {"split": "train", "task": None, "language": None, "seen": None, "metric": "rank", "value": 6}


def test_rows_come_back_as_written_one_json_object_a_line(tmp_path):
    path = tmp_path / "run" / "results.jsonl"
    results.write(path, [Row(**SCORE), Row(**FACT)])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [SCORE, FACT]
    assert results.read(path) == [Row(**SCORE), Row(**FACT)]


def test_the_file_is_readable_like_any_other(tmp_path):
    plain, path = tmp_path / "plain", tmp_path / "results.jsonl"
    plain.write_text("")
    results.write(path, [Row(**SCORE)])
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_reader_of_the_earlier_file_never_sees_the_new_one_half_written(tmp_path):
    path, earlier = tmp_path / "results.jsonl", tmp_path / "earlier"
    results.write(path, [Row(**SCORE)])
    earlier.hardlink_to(path)
    results.write(path, [Row(**SCORE), Row(**FACT)])
    assert len(results.read(earlier)) == 1
    assert len(results.read(path)) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("run", ""),
        ("method", None),
        ("seed", -1),
        ("seed", True),
        ("split", "dev"),
        ("task", None),
        ("language", ""),
        ("seen", "unheard"),
        ("active", None),
        ("value", float("nan")),
        ("value", "71"),
        ("n", 1.5),
        ("step", None),
    ],
)
def test_a_wrong_field_is_named(field, value):
    with pytest.raises(UserError, match=rf"\b{field} is"):
        Row(**SCORE | {field: value})


def test_a_run_level_fact_has_no_dataset():
    with pytest.raises(UserError, match="language is 'sw', expected null"):
        Row(**FACT | {"language": "sw"})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"run": "01234', "not JSON"),
        ("", "a blank line"),
        ("[1, 2]", "an object is needed"),
        (json.dumps({key: value for key, value in SCORE.items() if key != "metric"}), "metric"),
        (json.dumps(SCORE | {"extra": 1}), "extra"),
        (json.dumps(SCORE | {"split": "dev"}), "split is 'dev'"),
    ],
)
def test_a_corrupt_line_is_named_by_file_and_number(tmp_path, line, message):
    path = tmp_path / "results.jsonl"
    path.write_text(f"{json.dumps(SCORE)}\n{line}\n{json.dumps(SCORE)}\n")
    with pytest.raises(UserError) as error:
        results.read(path)
    assert f"{path}:2: " in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
def test_an_unreadable_file_is_named(tmp_path, content):
    path = tmp_path / "results.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"results\.jsonl.* (cannot be read|empty|not UTF-8).*; delete"):
        results.read(path)


@contextmanager
def small_disk():
    """No file of this process may grow beyond 2 kB: the kernel itself refuses, as it does on a full disk.

    Not a fixture: pytest prints its report before a fixture ends, and that may go to a file as well.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(tmp_path):
    path = tmp_path / "results.jsonl"
    results.write(path, [Row(**SCORE)])
    before = path.read_bytes()
    with (
        pytest.raises(UserError, match=r"cannot write .*results\.jsonl: .*untouched") as error,
        small_disk(),
    ):
        results.write(path, [Row(**SCORE)] * 100)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
