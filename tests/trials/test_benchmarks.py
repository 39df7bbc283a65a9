import json
import re
import subprocess
import sys
import time

import pytest
import torch
from tiny_models import ARCHITECTURES, build
from tiny_runs import config
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as benchmarks
from benchmarks import clock, counts, generation, layer, loop, precision, steps, workloads
from benchmarks.contenders import Contender
from benchmarks.measure import measure
from benchmarks.workloads import Workload


def test_counts_keep_to_their_bars_at_every_number_of_features(tmp_path, capsys):
    assert benchmarks.main(["--quick", "--out", str(tmp_path)]) == 0
    found = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    barred = {row["contender"]: row["bar"] for one in found for row in one["rows"] if row["bar"]}
    assert barred.keys() == {"FLix D=10", "FLix D=40", "FLix D=120", "FLix D=1,000"}
    assert "missed" not in capsys.readouterr().out
    assert (
        "forward and backward of the built-in T5 (5.9M), all linear" in (tmp_path / "report.md").read_text()
    )


def test_every_measure_is_taken_of_an_encoder_decoder_and_a_decoder(tmp_path, monkeypatch, capsys):
    tiny = [
        Workload(name, lambda name=name: build(name, torch.float32).eval(), 2, 4, 3) for name in ARCHITECTURES
    ]
    monkeypatch.setattr(workloads, "WORKLOADS", tiny)
    monkeypatch.setattr(layer, "WIDTHS", (8,))
    monkeypatch.setattr(generation, "TOKENS", 4)
    monkeypatch.setattr(steps, "THOUSANDS", 2000)
    monkeypatch.setattr(clock, "LEAST", 0.0)
    monkeypatch.setattr(clock, "keep_memory", lambda: None)  # for other tests have this process too
    assert benchmarks.main(["--rounds", "2", "--out", str(tmp_path)]) == 0
    titles = {json.loads(line)["title"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()}
    for name in ARCHITECTURES:
        assert f"step of {name}, q and v, 2 x 4 tokens" in titles
        assert f"generation of {name}, all linear, 16 combinations" in titles
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "FLix D=1,000" in printed
    assert "FLix D=40, base by oneDNN, as in train.py" in printed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_timed_with_compiled_layers_and_without_its_waiting(tmp_path, monkeypatch):
    tiny = Workload("a Llama", lambda: build("llama", torch.float32).eval(), 2, 4)
    monkeypatch.setattr(workloads, "ON_GPU", tiny)
    monkeypatch.setattr(clock, "LEAST", 0.0)
    monkeypatch.setattr(clock, "keep_memory", lambda: None)  # for other tests have this process too
    assert benchmarks.main(["--gpu", "--rounds", "2", "--out", str(tmp_path)]) == 0
    found = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    values = {(one["title"], row["contender"]): row["value"] for one in found for row in one["rows"]}
    step = "step of a Llama, all linear, 2 x 4 tokens"
    assert 0 < values[f"the GPU's own time in the {step}", "FLix D=40"] < values[step, "FLix D=40"]
    assert (step, "FLix D=40, compiled") in values


def test_precisions_are_compared(tmp_path, monkeypatch):
    tiny = {
        name: Workload("a Llama", lambda dtype=dtype: build("llama", dtype).eval(), 2, 6)
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }
    monkeypatch.setattr(precision, "CUT_GEMMA", tiny)
    monkeypatch.setattr(precision, "TARGETS", 3)
    monkeypatch.setattr(clock, "LEAST", 0.0)
    monkeypatch.setattr(clock, "keep_memory", lambda: None)  # for other tests have this process too
    assert benchmarks.main(["--precision", "--rounds", "2", "--out", str(tmp_path)]) == 0
    found = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    bars = {row["bar"] for one in found for row in one["rows"] if row["contender"] == "FLix D=40, bfloat16"}
    assert bars == {0.6, 1.1, 0.7}


def test_a_ratio_is_of_the_figures_of_one_round():
    figures = {"a": [1.0, 10.0, 2.0, 4.0, 3.0], "b": [2.0, 10.0, 6.0, 2.0, 6.0]}
    one = measure("time", "ms", figures, "a", {"b": 1.5})
    row = one.rows[1]
    assert (row.value, row.ratio) == (6.0, 2.0)
    assert row.low < row.ratio < row.high
    assert one.missed() == [row]
    assert measure("speed", "1/s", figures, "a", {"b": 1.5}, more_is_better=True).missed() == []


def test_rounds_call_everyone_as_often(monkeypatch):
    monkeypatch.setattr(clock, "LEAST", 0.0)
    calls = dict.fromkeys("ab", 0)

    def call(name):
        calls[name] += 1

    figures = clock.interleave({name: lambda name=name: call(name) for name in "ab"}, rounds=5)
    assert calls == dict.fromkeys("ab", clock.WARM_UP + 1 + 5)
    assert {name: len(own) for name, own in figures.items()} == {"a": 5, "b": 5}


class Product(nn.Module):
    def __init__(self, multiply):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3, 5))
        self.multiply = multiply

    def forward(self, x):
        return type("Output", (), {"loss": self.multiply(x, self.weight).sum()})


def test_a_product_that_pytorch_counts_as_nothing_is_not_overlooked():
    model, inputs = Product(lambda x, w: torch.zeros(4, 5).addmm_(x[0], w[0])), {"x": torch.ones(2, 4, 3)}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**inputs)
    assert counter.get_total_flops() == 0
    with pytest.raises(RuntimeError, match="addmm_ multiplies matrices"):
        counts.flops(Contender(model, []), inputs)


def test_a_product_added_in_place_counts_as_any():
    models = Product(lambda x, w: torch.zeros(2, 4, 5).baddbmm_(x, w)), Product(torch.bmm)
    in_place, apart = (counts.flops(Contender(model, []), {"x": torch.ones(2, 4, 3)}) for model in models)
    assert in_place == apart == 2 * (2 * 2 * 4 * 3 * 5)  # a product and its gradient of the weight


def test_what_a_call_frees_stays_for_the_next():
    code = """
import resource
import torch
from benchmarks.clock import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**22), torch.ones(2**23)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

freed = faults()
keep_memory()
faults()
print(freed, faults())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    freed, kept = map(int, done.stdout.split())
    assert kept < 0.01 * freed


def test_bytes_kept_are_those_of_what_backward_reads():
    class Squared(nn.Module):
        def forward(self, x):
            return type("Output", (), {"loss": (functional.relu(x) ** 2).sum()})

    x = torch.ones(3, 5, requires_grad=True)
    # Backward of the square and of relu both read relu's output: one tensor of 15 floats.
    assert counts.kept(Contender(Squared(), []), {"x": x}) == 15 * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "1"], "at least 2"),
        (["--gpu"], "PyTorch finds no GPU"),
        (["--rounds", "x"], "invalid int"),
    ],
)
def test_wrong_options_are_named(arguments, message, capsys):
    if arguments == ["--gpu"] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        benchmarks.main(arguments)
    assert message in capsys.readouterr().err


def test_a_runs_time_is_split_without_remainder(tiny, tmp_path, capsys):
    begun = time.process_time()
    loop.timed_train(config([*tiny, f"output={tmp_path}"]))
    passed = time.process_time() - begun
    seconds = [float(own) for own in re.findall(r" ([\d.]+) +[\d.]+% *$", capsys.readouterr().out, re.M)]
    assert sum(seconds) == pytest.approx(passed, abs=1)
    assert len(seconds) == 7


def test_a_part_is_taken_without_the_parts_that_it_calls(monkeypatch):
    class Work:
        def outer(self):
            spend(0.05)
            self.inner()

        def inner(self):
            spend(0.1)

    def spend(seconds):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    monkeypatch.setattr(loop, "PARTS", {"out": (Work, "outer"), "in": (Work, "inner")})
    shares = loop.Shares()
    with shares.watch():
        Work().outer()
        Work().outer()
    seconds = shares.seconds()
    assert seconds["out"] == pytest.approx(0.1, rel=0.2)
    assert seconds["in"] == pytest.approx(0.2, rel=0.2)
