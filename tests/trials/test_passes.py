"""Passes are counted as the batches that a run really draws."""

from collections import Counter

import numpy as np
import pytest
from tiny_runs import config

from flix_lightning.data.batches import BatchPlan, mixing_rates
from flix_lightning.runs.run import Run
from trials.passes import main, passes


def test_passes_are_those_of_the_batches(tiny, tmp_path):
    run = Run.resolve(config([*tiny, f"output={tmp_path}", "trainer.max_steps=300", "trainer.batch_size=8"]))
    found = passes(run)
    sizes = [sum(1 for _ in run.layout.read(one.task, "train", one.language)) for one in run.mixture.train]
    rates = mixing_rates(sizes, run.mixture.temperature, run.mixture.cap)
    lengths = np.ones(sum(sizes), dtype=int)
    plan = BatchPlan(
        lengths, lengths, sizes, rates, batch_size=8, micro_batch_size=8, max_steps=300, seed=0, start=0,
        rank=0, world_size=1,
    )  # fmt: skip
    drawn = Counter(row for micro in plan for row in micro.rows)
    start = 0
    counted = Counter()
    for dataset, size in zip(run.mixture.train, sizes, strict=True):
        times = sum(drawn[row] for row in range(start, start + size)) / size
        size_found, expected = found[dataset.task][counted[dataset.task]]
        assert size_found == size
        assert times == pytest.approx(expected, rel=0.15)
        counted[dataset.task] += 1
        start += size


def test_the_command_prints_a_line_a_task(tiny, tmp_path, capsys):
    assert main([*tiny, f"output={tmp_path}", "seed=0,1"]) == 0
    assert capsys.readouterr().out.count("semantic_parsing") == 2
