import pytest
import torch
from tiny_runs import checkpoint, do
from torch import nn

from flix_lightning.adapter.features import FeatureSpace
from flix_lightning.adapter.lazy_adam import LazyAdam
from flix_lightning.adapter.row_rates import row_ratios, scale_steps

RATIOS = torch.tensor([1.0, 0.25, 2.0, 1.0])
STEPS, WIDTH = 6, 3


def test_each_row_has_the_ratio_of_its_kind():
    space = FeatureSpace({"task:ner": 2, "language:sw": 1, "language:yo": 2, "languages:all": 1})
    expected = torch.tensor([1, 1, 0.25, 0.25, 0.25, 1, 1])
    assert torch.equal(row_ratios(space, {"language": 0.25}), expected)
    years = FeatureSpace({"2024:may": 1, "task:ner": 1})  # YAML reads such a kind as a number
    assert torch.equal(row_ratios(years, {2024: 0.5}), torch.tensor([0.5, 1, 1]))


def adamw(pool, lr, ratios=None):
    optimizer = torch.optim.AdamW([pool], lr=lr, weight_decay=0.0)
    if ratios is not None:
        scale_steps(optimizer, [pool], ratios)
    return optimizer


def lazy(pool, lr, ratios=None):
    return LazyAdam([pool], lr=lr, ratios=ratios)


def trained(make, rows, lr, ratios=None, sparse=False):
    """Rows of a pool after some steps; the second row has no gradient in every other step."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(STEPS + 1, len(RATIOS), WIDTH, generator=generator, dtype=torch.float64)
    pool = nn.Parameter(values[0, rows].clone())
    optimizer = make(pool, lr, ratios)
    for step, gradient in enumerate(values[1:]):
        touched = torch.tensor([row % 2 == 0 or step % 2 == 0 for row in rows])
        gradient = gradient[rows] * touched[:, None]
        if sparse:
            index = touched.nonzero().T
            gradient = torch.sparse_coo_tensor(
                index, gradient[touched], gradient.shape, check_invariants=True
            )
        pool.grad = gradient
        optimizer.step()
    return pool.detach()


@pytest.mark.parametrize(("make", "sparse"), [(adamw, False), (lazy, True)])
def test_a_row_is_trained_as_by_an_optimizer_of_its_own_learning_rate(make, sparse):
    found = trained(make, [0, 1, 2, 3], 0.1, RATIOS, sparse)
    for row, ratio in enumerate(RATIOS.tolist()):
        (alone,) = trained(make, [row], 0.1 * ratio, sparse=sparse)
        torch.testing.assert_close(found[row], alone)


@pytest.mark.parametrize("lazy", ["false", "true"])
def test_a_run_gives_each_kind_its_learning_rate(tiny, tmp_path, lazy):
    one_step = ["trainer.max_steps=1", "evaluation.test=false", "flix.dropout=0.0", f"optimizer.lazy={lazy}"]
    run = do([*tiny, *one_step, "flix.learning_rate_ratios={language:0.25}"], tmp_path)
    pool = checkpoint(run)["adapter"]["encoder.block.0.layer.0.SelfAttention.q.B"]
    steps = pool.abs().amax(dim=1)  # Adam's first step moves each number that has a gradient by the rate
    found = sorted({round(step / float(steps.max()), 3) for step in steps.tolist() if step})
    assert found == [0.25, 1.0]
