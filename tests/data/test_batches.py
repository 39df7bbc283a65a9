import time
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from flix_lightning.common.errors import UserError
from flix_lightning.data.batches import BatchPlan, Collator, EvaluationPlan, accumulation, mixing_rates


@pytest.mark.parametrize(
    ("sizes", "temperature", "cap", "expected"),
    [
        ([100, 400], 1, None, [1 / 5, 4 / 5]),
        ([100, 400], 2, None, [1 / 3, 2 / 3]),
        ([100, 400], float("inf"), None, [1 / 2, 1 / 2]),
        ([100, 400], 1, 100, [1 / 2, 1 / 2]),
        ([100, 1600], 2, 400, [1 / 3, 2 / 3]),  # cap before temperature: sqrt(100) to sqrt(400)
        ([7], 3, 2, [1]),
    ],
)
def test_mixing_rates_by_hand(sizes, temperature, cap, expected):
    assert mixing_rates(sizes, temperature, cap) == pytest.approx(expected)


SIZES = [5, 40, 13]
RATES = [0.2, 0.3, 0.5]
LENGTHS = np.random.default_rng(0).integers(1, 100, sum(SIZES))
TARGETS = np.random.default_rng(1).integers(1, 20, sum(SIZES))


def plan(**changes):
    options = {"batch_size": 24, "micro_batch_size": 6, "max_steps": 30, "seed": 3, **changes}
    return BatchPlan(LENGTHS, TARGETS, SIZES, np.array(RATES), **options)


def by_step(*plans):
    """Step -> sorted rows over all processes."""
    steps = {}
    for one in plans:
        for micro in one:
            steps.setdefault(micro.step, []).extend(micro.rows)
    return {step: sorted(rows) for step, rows in steps.items()}


def test_a_resumed_plan_goes_on_as_if_never_interrupted():
    whole = list(plan())
    assert list(plan(start=11)) == whole[11 * 4 :]
    assert list(plan(start=30)) == []
    assert [micro.step for micro in whole] == [step for step in range(30) for _ in range(4)]


def test_length_is_of_the_whole_run():
    assert len(plan()) == len(plan(start=7)) == len(list(plan())) == 120
    assert len(plan(world_size=2)) == len(list(plan(world_size=2, rank=1))) == 60


@pytest.mark.parametrize(("micro_batch_size", "world_size"), [(24, 1), (3, 1), (6, 2), (2, 4), (1, 3)])
def test_how_it_is_cut_changes_no_effective_batch(micro_batch_size, world_size):
    cut = [
        plan(micro_batch_size=micro_batch_size, world_size=world_size, rank=rank)
        for rank in range(world_size)
    ]
    assert by_step(*cut) == by_step(plan())
    assert len({len(list(one)) for one in cut}) == 1
    assert {len(micro.rows) for one in cut for micro in one} == {micro_batch_size}
    totals = {(micro.step, micro.target_tokens) for one in cut for micro in one}
    assert totals == {(step, TARGETS[rows].sum()) for step, rows in by_step(plan()).items()}


def test_seeds_differ():
    assert by_step(plan()) == by_step(plan())
    assert by_step(plan()) != by_step(plan(seed=4))


def dataset_of(row):
    return int(np.searchsorted(np.cumsum(SIZES), row, side="right"))


def test_every_example_is_used_once_before_any_is_used_again():
    draws = {dataset: [] for dataset in range(len(SIZES))}
    for _, rows in plan().effective_batches():
        for row in rows.tolist():
            draws[dataset_of(row)].append(row)
        for dataset, size in enumerate(SIZES):
            uses = Counter(draws[dataset])
            assert sum(uses.values()) == 0 or max(uses.values()) - min(uses[r] for r in uses) <= 1
            assert max(uses.values(), default=0) <= -(-len(draws[dataset]) // size)
    passes = [tuple(draws[1][first : first + 40]) for first in range(0, len(draws[1]) - 40, 40)]
    assert all(set(one) == set(range(5, 45)) for one in passes)
    assert len(set(passes)) == len(passes) > 2  # another order each time


def test_datasets_are_drawn_by_rate():
    drawn = Counter(dataset_of(row) for micro in plan(max_steps=500) for row in micro.rows)
    # 12,000 draws: five standard deviations of a share are 2.3 %.
    assert [drawn[dataset] / 12000 for dataset in range(3)] == pytest.approx(RATES, abs=0.023)


def test_micro_batches_of_a_step_do_not_overlap_in_length():
    for micro, following in pairwise(plan()):
        if micro.step == following.step:
            assert LENGTHS[micro.rows].max() <= LENGTHS[following.rows].min()


@pytest.mark.parametrize(
    ("micro_batch_size", "world_size", "cure"),
    [
        (5, 1, "trainer.micro_batch_size=4 or trainer.batch_size=25 would do"),
        (8, 2, "trainer.micro_batch_size=6 or trainer.batch_size=32 would do"),
        (48, 2, "trainer.micro_batch_size=12 or trainer.batch_size=96 would do"),
        (2, 7, ": trainer.batch_size=28 would do"),
    ],
)
def test_batch_size_must_be_whole_micro_batches_on_every_process(micro_batch_size, world_size, cure):
    fault = f"batch_size 24 is not a multiple of micro_batch_size {micro_batch_size} x {world_size} devices"
    with pytest.raises(UserError, match=f"{fault}.*{cure}"):
        plan(micro_batch_size=micro_batch_size, world_size=world_size)


@pytest.mark.parametrize(("devices", "micro_batch_size", "steps"), [(1, 64, 8), (4, 32, 4), (8, 64, 1)])
def test_the_papers_batch_is_accumulated(devices, micro_batch_size, steps):
    assert accumulation(512, micro_batch_size, devices) == steps


def test_resuming_late_in_a_run_of_the_papers_size_is_quick():
    sizes = [200] * 90
    lengths = np.ones(sum(sizes), dtype=np.int64)
    late = BatchPlan(
        lengths, lengths, sizes, np.full(90, 1 / 90),
        batch_size=512, micro_batch_size=64, max_steps=2000, seed=0, start=1999,
    )  # fmt: skip
    began = time.process_time()
    assert len(list(late)) == 8
    assert time.process_time() - began < 5


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_evaluation_has_every_row_longest_first_and_the_shortest_again_for_even_processes(world_size):
    rows = np.array([3, 4, 9, 20, 21, 22, 50])
    shares = [list(EvaluationPlan(rows, LENGTHS, 2, rank, world_size)) for rank in range(world_size)]
    found = Counter(row for share in shares for batch in share for row in batch)
    assert sorted(found) == rows.tolist()
    assert found.total() == -(-len(rows) // world_size) * world_size
    assert {row for row, count in found.items() if count > 1} <= {min(rows, key=lambda row: LENGTHS[row])}
    assert len({len(share) for share in shares}) == 1
    for share in shares:
        lengths = [LENGTHS[row] for batch in share for row in batch]
        assert lengths == sorted(lengths, reverse=True)
        assert all(len(batch) == 2 for batch in share[:-1])


class TestCollator:
    INPUTS = ((5, 6, 7), (8,))
    TARGETS = ((2, 1), (3, 4, 1))

    def test_encoder_decoder(self):
        batch = Collator(0, is_encoder_decoder=True).for_training(self.INPUTS, self.TARGETS)
        assert {key: value.tolist() for key, value in batch.items()} == {
            "input_ids": [[5, 6, 7], [8, 0, 0]],
            "attention_mask": [[1, 1, 1], [1, 0, 0]],
            "labels": [[2, 1, -100], [3, 4, 1]],
        }
        generation = Collator(0, is_encoder_decoder=True).for_generation(self.INPUTS)
        assert generation["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]

    def test_decoder_only(self):
        batch = Collator(9, is_encoder_decoder=False).for_training(self.INPUTS, self.TARGETS)
        assert {key: value.tolist() for key, value in batch.items()} == {
            "input_ids": [[5, 6, 7, 2, 1], [8, 3, 4, 1, 9]],
            "attention_mask": [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]],
            "labels": [[-100, -100, -100, 2, 1], [-100, 3, 4, 1, -100]],
        }
        generation = Collator(9, is_encoder_decoder=False).for_generation(self.INPUTS)
        assert {key: value.tolist() for key, value in generation.items()} == {
            "input_ids": [[5, 6, 7], [9, 9, 8]],
            "attention_mask": [[1, 1, 1], [0, 0, 1]],
        }
