"""A file of lines keeps complete lines only, and is resumed with the same inputs by one process at a time."""

import resource

import pytest
from folders import made

from flix_lightning.common.append_file import open_append_file
from flix_lightning.common.errors import UserError

INPUTS = {"input": "a1", "run": "b2", "explain": False}


def test_it_resumes_after_the_last_complete_line(tmp_path):
    path = tmp_path / "deep" / "out.jsonl"
    with open_append_file(path, INPUTS) as lines:
        assert lines.count == 0
        lines.add(["one", "zwei – двa"])
    with path.open("ab") as file:
        file.write("dr\N{LATIN SMALL LETTER E WITH ACUTE}".encode()[:-1])  # killed within a letter
    with open_append_file(path, INPUTS) as lines:
        assert path.read_text() == "one\nzwei – двa\n"
        assert lines.count == 2
        lines.add(["drei"])
    assert path.read_text() == "one\nzwei – двa\ndrei\n"


def test_lines_longer_than_one_read(tmp_path):
    path, long = tmp_path / "out", "x" * 3_000_000
    with open_append_file(path, INPUTS) as lines:
        lines.add([long, long])
    path.write_bytes(path.read_bytes() + long.encode())
    with open_append_file(path, INPUTS) as lines:
        assert lines.count == 2
    assert path.read_text() == f"{long}\n{long}\n"


def test_no_lines_leave_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), open_append_file(tmp_path / "out", INPUTS):
        raise ZeroDivisionError
    assert made(tmp_path) == []


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        ({**INPUTS, "run": "c3"}, "run"),
        ({**INPUTS, "input": "d4", "explain": True}, "explain, input"),
        ({"input": "a1", "run": "b2"}, "explain"),
    ],
)
def test_other_inputs_leave_it_untouched(tmp_path, inputs, names):
    path = tmp_path / "out"
    with open_append_file(path, INPUTS) as lines:
        lines.add(["one"])
    with pytest.raises(UserError, match=f"another {names};"), open_append_file(path, inputs):
        pass
    assert path.read_text() == "one\n"


@pytest.mark.parametrize("inputs", ["[1]", "5", "{"])
def test_inputs_of_something_else_are_one_line(tmp_path, inputs):
    path = tmp_path / "out.jsonl"
    path.write_text("one\n")
    (tmp_path / "out.jsonl.inputs.json").write_text(inputs)
    with (
        pytest.raises(UserError, match="exists already and cannot be resumed"),
        open_append_file(path, INPUTS),
    ):
        pass
    assert path.read_text() == "one\n"


def test_a_file_of_something_else_stays_untouched(tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text("no end of line")
    with pytest.raises(UserError, match="exists already"), open_append_file(path, INPUTS):
        pass
    assert path.read_text() == "no end of line"


def test_a_full_disk_leaves_complete_lines(tmp_path):
    path = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_append_file(path, INPUTS) as lines:
        lines.add(["one"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                lines.add(["two", "three", "four"])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert path.read_text() == "one\n"
        lines.add(["two"])
    assert path.read_text() == "one\ntwo\n"


def test_one_writer_at_a_time(tmp_path):
    path = tmp_path / "out"
    with open_append_file(path, INPUTS) as lines:
        lines.add(["one"])
        with pytest.raises(UserError, match="another process"), open_append_file(path, INPUTS):
            pass
        lines.add(["two"])
    with open_append_file(path, INPUTS) as lines:
        assert lines.count == 2
