"""Commands on two devices: each process answers a share, the first alone writes and reports."""

import json
import os
import re

import pytest
from tiny_data import SEEN, UNSEEN
from tiny_runs import json_lines

import commands
from flix_lightning.common.errors import UserError
from flix_lightning.models.generation import Generator

ON_TWO = ["devices=2", "accelerator=cpu"]


@pytest.fixture(scope="module")
def source(data, tmp_path_factory):
    """Lines of all test data, of several lengths, whose last batch is not whole."""
    lines = [
        {**line, "task": task, "language": code}
        for task, code in [*SEEN, *UNSEEN]
        for line in json_lines(data / task / "test" / f"{code}.jsonl")
    ]
    path = tmp_path_factory.mktemp("source") / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    return path


def count_batches():
    generate = Generator.__call__

    def counted(self, *given):
        print("BATCH")
        return generate(self, *given)

    Generator.__call__ = counted


def two(folder, script, *arguments, moments=((), ()), code=0):
    """Do a command in two processes of an outer launcher; the second one must end well, and in silence."""
    first, second = commands.start_two(folder, script, *ON_TWO, *arguments, moments=moments)
    first.wait(code), second.wait()
    assert second.err == ""
    return first, second


def test_two_processes_predict_as_one_does(done, source, tmp_path):
    given = (f"run={done}", f"input={source}", "batch_size=2", "explain=true")
    commands.run(tmp_path, "predict.py", *given, f"out={tmp_path}/one.jsonl")
    moments = [[count_batches], [count_batches]]
    both = two(tmp_path, "predict.py", *given, f"out={tmp_path}/two.jsonl", moments=moments)
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert [one.out.count("BATCH") for one in both] == [6, 6]  # of 8 batches in one window and 4 in the next
    assert set(both[1].out.splitlines()) == {"BATCH"}
    assert "never trained, so dropped: language:zu" in both[0].out


def test_lightning_starts_the_second_process(done, tmp_path):
    """And what is finished, or refused, starts none."""
    one = commands.run(tmp_path / "one", "evaluate.py", f"run={done}")
    ended = commands.run(tmp_path / "two", "evaluate.py", f"run={done}", *ON_TWO)
    assert ended.out.replace("/two/", "/one/") == one.out
    found = {path.relative_to(tmp_path / "one"): path for path in (tmp_path / "one").rglob("*.jsonl")}
    assert len(found) > len(SEEN)
    for place, path in found.items():
        assert (tmp_path / "two" / place).read_bytes() == path.read_bytes()
    again = two(tmp_path / "two", "evaluate.py", f"run={done}", f"output={tmp_path}/two/outputs")
    assert "Predictions: " in again[0].out


def fail():
    def fails(self, *given):
        raise UserError("the base gives NaN")

    Generator.__call__ = fails


@pytest.mark.parametrize(
    ("given", "moments", "said"),
    [
        (["input=bad.jsonl"], ((), ()), "bad.jsonl:2"),
        (["run=nowhere"], ((), ()), "run=nowhere"),
        (["batch_size=0"], ((), ()), "batch_size is 0"),
        ([], ((), [fail]), "the base gives NaN"),
        ([], ([fail], ()), "the base gives NaN"),
        (["devices=3"], ((), ()), "devices=3: 3 processes needed, and WORLD_SIZE is 2: .*python predict.py"),
    ],
)
def test_a_refusal_is_one_line_of_the_first_process(done, source, tmp_path, given, moments, said):
    (tmp_path / "rank0").mkdir()
    (tmp_path / "rank0/bad.jsonl").write_text('{"text": "a"}\n{"text": 1}\n')
    common = [f"run={done}", f"input={source}", "batch_size=2", "out=out"]
    first, _ = two(tmp_path, "predict.py", *common, *given, moments=moments, code=1)
    (line,) = [line for line in first.err.splitlines() if line.startswith("error: ")]
    assert re.search(said, line)
    assert "Traceback" not in first.err
    assert not (tmp_path / "rank0/out").exists()


def test_more_devices_than_have_work_are_refused(done, source, tmp_path):
    given = (f"run={done}", f"input={source}", "accelerator=cpu", "devices=9")
    ended = commands.run(tmp_path, "predict.py", *given, code=1)
    assert ended.err == "error: devices is 9; a whole number from 1 to 8 is needed\n"


def end():
    def ends(self, *given):
        os._exit(7)

    Generator.__call__ = ends


def test_a_process_that_ends_early_ends_the_other(done, source, tmp_path):
    given = [*ON_TWO, f"run={done}", f"input={source}", "batch_size=2", f"out={tmp_path}/out"]
    first, second = commands.start_two(tmp_path, "predict.py", *given, moments=((), [end]))
    second.wait(7), first.wait(1)
    assert first.err.splitlines()[-1].startswith("error: another process of this command ended early")
    first, second = commands.start_two(tmp_path, "predict.py", *given, moments=([end], ()))
    first.wait(7), second.wait(1)
    assert second.err == ""
