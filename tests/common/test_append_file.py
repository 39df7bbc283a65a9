import resource
import signal
import subprocess
import sys

import pytest

from flix_lightning.common.append_file import open_append_file
from flix_lightning.common.errors import UserError

MADE_OF = {"input": "a1", "run": "b2", "explain": False}


def test_it_goes_on_after_the_last_whole_line(tmp_path):
    path = tmp_path / "deep" / "out.jsonl"
    with open_append_file(path, MADE_OF) as lines:
        assert lines.count == 0
        lines.add(["one", "zwei – двa"])
    with path.open("ab") as file:
        file.write("dr\N{LATIN SMALL LETTER E WITH ACUTE}".encode()[:-1])  # killed in the middle of a letter
    with open_append_file(path, MADE_OF) as lines:
        assert path.read_text() == "one\nzwei – двa\n"
        assert lines.count == 2
        lines.add(["drei"])
    assert path.read_text() == "one\nzwei – двa\ndrei\n"


def test_lines_longer_than_what_is_read_at_once(tmp_path):
    path, long = tmp_path / "out", "x" * 3_000_000
    with open_append_file(path, MADE_OF) as lines:
        lines.add([long, long])
    path.write_bytes(path.read_bytes() + long.encode())
    with open_append_file(path, MADE_OF) as lines:
        assert lines.count == 2
    assert path.read_text() == f"{long}\n{long}\n"


def test_nothing_is_left_of_no_lines(tmp_path):
    with pytest.raises(ZeroDivisionError), open_append_file(tmp_path / "out", MADE_OF):
        raise ZeroDivisionError
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize(
    ("made_of", "said"),
    [
        ({**MADE_OF, "run": "c3"}, "begun with another run;"),
        ({**MADE_OF, "input": "d4", "explain": True}, "begun with another explain, input;"),
        ({"input": "a1", "run": "b2"}, "begun with another explain;"),
    ],
)
def test_what_was_begun_otherwise_is_left_alone(tmp_path, made_of, said):
    path = tmp_path / "out"
    with open_append_file(path, MADE_OF) as lines:
        lines.add(["one"])
    with pytest.raises(UserError, match=said), open_append_file(path, made_of):
        pass
    assert path.read_text() == "one\n"


def test_a_file_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text("no end of line")
    with pytest.raises(UserError, match="is there already"), open_append_file(path, MADE_OF):
        pass
    assert path.read_text() == "no end of line"


def test_a_full_disk_leaves_whole_lines(tmp_path):
    path = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_append_file(path, MADE_OF) as lines:
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


HOLDER = """
import sys, time
from pathlib import Path
from flix_lightning.common.append_file import open_append_file
with open_append_file(Path(sys.argv[1]), {}):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "out"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process"), open_append_file(path, {}):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with open_append_file(path, {}) as lines:
        assert lines.count == 0
