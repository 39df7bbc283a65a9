import copy
from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model
from reference import pairs
from test_adapter import SPACE, projection
from tiny_models import ARCHITECTURES, FEATURES, adapt, batch, build
from torch import nn

from benchmarks.contenders import Contender
from benchmarks.counts import kept
from flix_lightning.adapter.features import FeatureSpace
from flix_lightning.adapter.reference import project
from flix_lightning.adapter.update import down, up


@pytest.mark.parametrize("index", [[[0, 1], [3, 1]], [[2], [2]], [[0, 2, 3]]], ids=str)
def test_gradients_are_those_of_finite_differences(index):
    torch.manual_seed(0)
    shapes = ((2, 3, 4), (5, 4), (5, 6))
    given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    weight, index = torch.randn(4, 6, dtype=torch.float64), torch.tensor(index)

    def projected(x, A, B):
        x, product = down(x, A, index, torch.float64)
        return up(x @ weight, product, B, index)

    assert torch.autograd.gradcheck(projected, given)
    x = given[0].detach()
    assert torch.autograd.gradcheck(lambda *pools: projected(x, *pools), given[1:])


def test_where_the_input_needs_no_gradient_the_base_makes_none():
    module, routing = projection("linear")
    seen = []
    module.base.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].requires_grad))
    with routing.use(SPACE.rows(FEATURES)):
        for needed in (False, True):
            module(torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=needed)).sum().backward()
    assert seen == [False, True]


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_the_reference_rounded(weights, autocast):
    module, routing = projection("linear")
    module.base.to(weights)
    module.A.data, module.B.data = module.A.data.float(), module.B.data.float()
    x = torch.randn(4, 3, 5).to(weights).requires_grad_()
    with (
        torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext(),
        routing.use(SPACE.rows(FEATURES)),
    ):
        output = module(x)
    output.float().sum().backward()
    reference = pairs(SPACE.ranks, module.A.double(), module.B.double())
    x_too = x.detach().double().requires_grad_()
    project(x_too, module.weight.double(), module.bias.double(), reference, FEATURES).sum().backward()
    torch.testing.assert_close(x.grad.double(), x_too.grad, rtol=0.03, atol=0.1)
    own = torch.cat([(A if A.grad is None else A.grad).reshape(-1, 5) for A, _ in reference.values()])
    known = torch.cat([torch.full((len(A), 1), A.grad is not None) for A, _ in reference.values()])
    assert module.A.grad.dtype == torch.float32
    torch.testing.assert_close(module.A.grad[:-1].double() * known, own * known, rtol=0.03, atol=0.2)


def test_a_base_whose_backward_reads_its_output_is_refused():
    class Exponential(nn.Linear):
        def forward(self, x):
            return super().forward(x).exp()

    module, routing = projection("linear")
    module.base.__class__ = Exponential
    with routing.use(SPACE.rows(FEATURES)):
        output = module(torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_a_projection_used_twice_gets_both_gradients():
    module, routing = projection("linear")
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    apart = []
    with routing.use(SPACE.rows(FEATURES)):
        for factor in (1.0, -2.0):
            module.zero_grad()
            (module(factor * x) ** 2).sum().backward()
            apart.append((module.A.grad.clone(), module.B.grad.clone()))
        module.zero_grad()
        ((module(x) ** 2).sum() + (module(-2.0 * x) ** 2).sum()).backward()
    for pool, one, other in zip((module.A, module.B), *apart, strict=True):
        torch.testing.assert_close(pool.grad, one + other)


@pytest.mark.parametrize("features", [10, 1000])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_as_little_is_kept_for_backward_as_by_lora_of_the_active_rank(architecture, features):
    base = build(architecture, torch.float32)
    inputs = batch(base)
    lora = get_peft_model(copy.deepcopy(base), LoraConfig(r=6, lora_alpha=6, target_modules="all-linear"))
    ranks = {f"task:{n}": 4 for n in range(features // 2)} | {
        f"language:{n}": 2 for n in range(features // 2)
    }
    model = copy.deepcopy(base)
    adapter = adapt(model, ranks)
    named = [(f"task:{n}", f"language:{n}") for n in range(4)]
    rows = FeatureSpace(ranks).rows(named)
    assert not rows.uniform
    ours = Contender(model, adapter.parameters(), lambda: adapter.route(rows))
    # The indices are there once for all projections; the bar is 1 %.
    assert kept(ours, inputs) - rows.index.nbytes <= 1.01 * kept(Contender(lora, []), inputs)
