import copy
import math
from contextlib import nullcontext

import pytest
import torch
from tiny_models import FEATURES, RANKS, batch, build
from tiny_runs import checkpoint, do
from torch import nn

from flix_lightning.adapter.features import FeatureSpace
from flix_lightning.adapter.lazy_adam import LazyAdam, clip_sparse_grad_norm_
from flix_lightning.adapter.projection import inject
from flix_lightning.common.errors import UserError
from flix_lightning.training import train as experiment
from flix_lightning.training.module import FlixModule

ROWS, WIDTH, STEPS = 5, 3, 40


def steps_of(touched, seed=0):
    """For each step, (row, gradient) pairs; a row may come twice, as from two micro-batches."""
    generator = torch.Generator().manual_seed(seed)
    return [
        [(row, torch.randn(WIDTH, generator=generator)) for row in rows for _ in range(1 + row % 2)]
        for rows in touched
    ]


SOMETIMES = [[row for row in range(ROWS) if step % (row + 1) == 0 and row != 4] for step in range(STEPS)]
ALWAYS = [list(range(ROWS))] * STEPS


def sparse(pairs):
    rows, gradients = zip(*pairs, strict=True)
    return torch.sparse_coo_tensor(
        [rows], torch.stack(gradients), (ROWS, WIDTH), is_coalesced=False, check_invariants=True
    )


def start():
    return nn.Parameter(torch.linspace(-1, 1, ROWS * WIDTH).reshape(ROWS, WIDTH))


def trained(steps, make=LazyAdam, dense=False):
    pool = start()
    optimizer = make([pool], lr=0.1)
    for pairs in steps:
        pool.grad = sparse(pairs).to_dense() if dense else sparse(pairs)
        optimizer.step()
    return pool.detach(), optimizer


def naive(value, gradients, lr=0.1, beta1=0.9, beta2=0.999, eps=1e-8):
    """Algorithm 1 of Adam, one number at a time."""
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        value -= lr * (m / (1 - beta1**t)) / (math.sqrt(v / (1 - beta2**t)) + eps)
    return value


def test_each_row_is_trained_as_if_its_own_steps_were_all():
    steps = steps_of(SOMETIMES)
    found, _ = trained(steps)
    for row in range(ROWS):
        own = [sum(g.double() for r, g in pairs if r == row) for pairs in steps if row in dict(pairs)]
        expected = [
            naive(float(value), [float(g[column]) for g in own])
            for column, value in enumerate(start().detach()[row])
        ]
        torch.testing.assert_close(found[row].double(), torch.tensor(expected).double(), rtol=1e-5, atol=1e-5)
    assert torch.equal(found[4], start()[4])  # never touched


def adamw(pools, lr):
    return torch.optim.AdamW(pools, lr=lr, weight_decay=0.0, fused=True)


@pytest.mark.parametrize("touched", [ALWAYS, [[1, 3]], [[0], [0], [0]]], ids=["always", "once", "one row"])
def test_where_no_step_misses_a_row_it_is_the_dense_one(touched):
    steps = steps_of(touched)
    expected, _ = trained(steps, adamw, dense=True)
    torch.testing.assert_close(trained(steps)[0], expected, rtol=1e-5, atol=1e-6)


def test_a_row_that_is_not_touched_stays_as_it_is_to_the_bit():
    pool, optimizer = trained(steps_of(ALWAYS))
    before = copy.deepcopy((pool, optimizer.state_dict()["state"][0]))
    (moving,) = optimizer.param_groups[0]["params"]
    moving.grad = sparse([(1, torch.ones(WIDTH))])
    optimizer.step()
    still = torch.tensor([0, 2, 3, 4])
    assert torch.equal(moving[still], before[0][still])
    assert not torch.equal(moving[1], before[0][1])
    for key, value in optimizer.state_dict()["state"][0].items():
        assert torch.equal(value[still], before[1][key][still])
        assert not torch.equal(value[1], before[1][key][1])


def test_it_goes_on_from_its_state_to_the_bit():
    steps = steps_of(SOMETIMES)
    expected, _ = trained(steps)
    pool, optimizer = trained(steps[:17])
    moving = nn.Parameter(pool.clone())
    again = LazyAdam([moving], lr=0.7)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for pairs in steps[17:]:
        moving.grad = sparse(pairs)
        again.step()
    assert torch.equal(moving, expected)


def test_scaled_gradients():
    """As fp16's are; what overflows moves nothing."""
    steps = steps_of(SOMETIMES[:9])
    expected, _ = trained(steps)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    pool = start()
    optimizer = LazyAdam([pool], lr=0.1)
    for number, pairs in enumerate(steps):
        if number == 4:
            pool.grad = sparse([(0, torch.full((WIDTH,), math.inf))])
            scaler.step(optimizer)
            scaler.update()
        pool.grad = sparse(pairs) * scaler.scale(torch.ones(()))
        scaler.step(optimizer)
        scaler.update()
    torch.testing.assert_close(pool.detach(), expected)


@pytest.mark.parametrize("norm", [0.5, 1e9])
def test_clipping_is_that_of_dense_gradients(norm):
    pools = [(start(), sparse(pairs)) for pairs in steps_of(SOMETIMES[:3])]
    unused = nn.Parameter(torch.zeros(2, 2))
    for pool, grad in pools:
        pool.grad = grad.to_dense()
    nn.utils.clip_grad_norm_([pool for pool, _ in pools], norm)
    expected = [pool.grad for pool, _ in pools]
    for pool, grad in pools:
        pool.grad = grad
    clip_sparse_grad_norm_([unused, *(pool for pool, _ in pools)], norm)
    torch.testing.assert_close([pool.grad.to_dense() for pool, _ in pools], expected)


# -- the gradients it takes


def gradients(architecture, sparse_gradients, features, frozen=(), autocast=False, checkpointed=False):
    """Of two micro-batches, added up."""
    model = build(architecture, torch.float32)
    space = FeatureSpace(RANKS, frozen)
    adapter = inject(model, space, "all-linear", sparse_gradients=sparse_gradients)
    with torch.no_grad():
        for pool in adapter.parameters():
            pool[:-1] += 0.1
    if checkpointed:
        adapter.checkpoint_layers(model)
    for seed in (2, 3):
        with (
            torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext(),
            adapter.route(space.rows(features)),
        ):
            loss = model(**batch(model, seed=seed), use_cache=False).loss
        loss.backward()
    return space, [pool.grad for pool in adapter.parameters()]


UNIFORM = [("task:ner", "language:sw")] * 4
FROZEN = {"frozen": ("task:ner", "language:am")}


@pytest.mark.parametrize(
    ("architecture", "features", "more"),
    {
        "t5": ("t5", FEATURES, {}),
        "gpt2": ("gpt2", FEATURES, {}),
        "llama": ("llama", UNIFORM, {}),
        "some frozen": ("t5", FEATURES, FROZEN),
        "some frozen, and the same for all": ("llama", UNIFORM, FROZEN),
        "bfloat16": ("t5", FEATURES, {"autocast": True}),
        "recomputed": ("t5", FEATURES, {"checkpointed": True, **FROZEN}),
    }.values(),
    ids=lambda value: None,
)
def test_sparse_gradients_are_the_dense_ones_of_the_active_rows(architecture, features, more):
    _, dense = gradients(architecture, False, features, **more)
    space, found = gradients(architecture, True, features, **more)
    torch.testing.assert_close([grad.to_dense() for grad in found], dense)
    trained = {name for names in features for name in names if name in RANKS} - set(more.get("frozen", ()))
    may = {*space.range_of(trained), space.null_row}
    for grad in found:
        assert set(grad.coalesce().indices()[0].tolist()) <= may
        assert not grad.to_dense()[space.null_row].any()
        assert not grad.to_dense()[space.range_of(space.frozen)].any()


# -- runs


LAZY = ["optimizer.lazy=true", "trainer.max_steps=4", "flix.controls=[]", "evaluation.test_cap=1"]


def test_a_run_that_was_broken_off_ends_as_an_unbroken_one(tiny, tmp_path, monkeypatch):
    class Breaks(FlixModule):
        def training_step(self, batch):
            if batch["step"] == 3:
                raise OSError("as if killed")
            return super().training_step(batch)

    unbroken = checkpoint(do([*tiny, *LAZY], tmp_path / "unbroken"))
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "FlixModule", Breaks)
        with pytest.raises(OSError, match="as if killed"):
            do([*tiny, *LAZY], tmp_path / "broken")
    resumed = checkpoint(do([*tiny, *LAZY], tmp_path / "broken"))
    for key in ("adapter", "optimizer_states"):
        torch.testing.assert_close(resumed[key], unbroken[key], rtol=0, atol=0)
    dense = checkpoint(do([*tiny, *LAZY, "optimizer.lazy=false"], tmp_path / "dense"))
    name = "encoder.block.0.layer.0.SelfAttention.q.B"
    assert not torch.equal(dense["adapter"][name], unbroken["adapter"][name])


def test_mixed_precision_and_other_micro_batches(tiny, tmp_path):
    exact = [*tiny, *LAZY, "model.dtype=float64", "trainer.precision=64-true"]
    one, other = (
        checkpoint(do([*exact, f"trainer.micro_batch_size={size}"], tmp_path / str(size)))["adapter"]
        for size in (8, 2)
    )
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    rounded = checkpoint(do([*tiny, *LAZY, "trainer.precision=bf16-mixed"], tmp_path / "bf16"))["adapter"]
    name = "encoder.block.0.layer.0.SelfAttention.q.B"
    torch.testing.assert_close(rounded[name].double(), one[name], rtol=0, atol=0.05)


def test_several_processes_are_refused(tiny, tmp_path):
    several = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.threads=1"]
    with pytest.raises(UserError, match=r"optimizer\.lazy=true needs one process, and there are 2"):
        do([*several, *tiny, *LAZY], tmp_path)
