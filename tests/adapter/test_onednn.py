"""Frozen linear layers by oneDNN, against the formula in float64."""

import copy

import pytest
import torch
from reference import pairs
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from flix_lightning.adapter.features import FeatureSpace
from flix_lightning.adapter.onednn import TYPES, FrozenLinear, use_onednn
from flix_lightning.adapter.projection import AdaptedProjection
from flix_lightning.adapter.reference import project
from flix_lightning.adapter.routing import Routing
from flix_lightning.models import base as models


def layer(bias=True, width=(96, 160), dtype=torch.float32):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(*width, bias=bias)).to(dtype).requires_grad_(False)
    use_onednn(model)
    return model[0]


class Products(TorchDispatchMode):
    """Counts those that oneDNN is given."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.mkldnn._linear_pointwise.default
        return function(*args, **(kwargs or {}))


@pytest.fixture
def products():
    with Products() as products:
        yield products


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def dtype(request):
    if request.param not in TYPES:
        pytest.skip("this processor has no bfloat16")
    return request.param


def assert_rounded(found, exact):
    """See that a result is the exact one, rounded once to its type (and summed in float32)."""
    rounding = torch.finfo(found.dtype).eps * exact.abs() if found.dtype == torch.bfloat16 else 0
    assert ((found.double() - exact).abs() <= rounding + 1e-5 * (1 + exact.abs())).all()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(128, 96), (8, 16, 96), (2, 8, 8, 96)])
def test_forward_and_backward_are_those_of_the_formula(shape, bias, dtype, products):
    linear = layer(bias, dtype=dtype)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    grad = torch.randn(*shape[:-1], 160, dtype=dtype)
    output = linear(x)
    output.backward(grad)
    assert_rounded(
        output, x.detach().double() @ linear.weight.double().T + (linear.bias.double() if bias else 0)
    )
    assert_rounded(x.grad, grad.double() @ linear.weight.double())
    assert products.count == 2


@pytest.mark.parametrize("view", ["transposed", "slice", "every second"])
def test_inputs_and_gradients_need_not_stand_together(view, dtype, products):
    """PyTorch's own layer multiplies each example of such an input by a copy of the weight."""
    linear = layer(dtype=dtype)
    x = {
        "transposed": torch.randn(16, 8, 96, dtype=dtype).transpose(0, 1),
        "slice": torch.randn(8, 20, 96, dtype=dtype)[:, 4:],
        "every second": torch.randn(96, 256, dtype=dtype).T[::2],
    }[view].requires_grad_()
    output = linear(x)
    output.sum().backward()
    assert_rounded(output, x.detach().double() @ linear.weight.double().T + linear.bias.double())
    assert_rounded(x.grad, linear.weight.double().sum(dim=0).expand_as(x))
    assert products.count == 2


def test_only_the_weight_is_kept_for_backward():
    linear, kept = layer(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda t: t):
        linear(torch.randn(128, 96, requires_grad=True))
    assert [tensor.data_ptr() for tensor in kept] == [linear.weight.data_ptr()]


@pytest.mark.parametrize("case", ["small", "trained", "float64", "autocast"])
def test_what_it_is_not_for_is_left_to_pytorch(case, products):
    linear = layer(dtype=torch.float64 if case == "float64" else torch.float32)
    linear.requires_grad_(case == "trained")
    x = torch.randn(4 if case == "small" else 128, 96).to(linear.weight.dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        output = linear(x)
        expected = nn.functional.linear(x, linear.weight, linear.bias)
    assert torch.equal(output, expected)
    output.sum().backward()
    assert x.grad.isfinite().all()
    assert (linear.weight.grad is not None) == (case == "trained")
    assert not products.count


def test_torch_compile_sees_a_plain_layer():
    linear, x, seen = layer(), torch.randn(128, 96), []
    compiled = torch.compile(
        linear, fullgraph=True, backend=lambda graph, _: seen.append(graph.code) or graph.forward
    )
    assert torch.equal(compiled(x), nn.functional.linear(x, linear.weight, linear.bias))
    assert "_C._nn.linear" in seen[0]
    assert "mkldnn" not in seen[0]


@pytest.mark.parametrize("rank", [2, 64])
def test_an_update_that_all_examples_share_is_as_exact(rank, products):
    torch.manual_seed(0)
    space, routing = FeatureSpace({"shared:all": rank}), Routing()
    module = AdaptedProjection("q", layer(), space, routing, seed=0)
    with torch.no_grad():
        module.B[:-1].normal_()
    x = torch.randn(16, 32, 96, requires_grad=True)
    grad = torch.randn(16, 32, 160)
    with routing.use(space.rows([("shared:all",)] * 16)):
        output = module(x)
    output.backward(grad)
    x_too = x.detach().double().requires_grad_()
    reference = pairs(space.ranks, module.A.double(), module.B.double())
    expected = project(x_too, module.weight.double(), module.bias.double(), reference, [("shared:all",)] * 16)
    expected.backward(grad.double())
    torch.testing.assert_close(output.double(), expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(x.grad.double(), x_too.grad, atol=1e-4, rtol=1e-5)
    for pool, own in zip((module.A, module.B), reference["shared:all"], strict=True):
        torch.testing.assert_close(pool.grad[:-1].double(), own.grad, atol=1e-3, rtol=1e-4)
    # The base's two products, and where they are large enough the six of the update.
    assert products.count == (8 if rank == 64 else 2)


def test_a_base_that_is_loaded_has_them_and_is_saved_as_ever(tmp_path, products):
    base = models.load("cldr-base", "main", "float32")
    model = base.model.requires_grad_(False)
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert linears
    assert all(type(linear) is FrozenLinear for linear in linears)
    inputs = base.tokenizer(["a text of some words"] * 16, return_tensors="pt")
    logits = model(**inputs, labels=inputs["input_ids"]).logits
    assert products.count > len(linears) / 2

    plain = copy.deepcopy(model)
    for module in plain.modules():
        if type(module) is FrozenLinear:
            module.__class__ = nn.Linear
    expected = plain(**inputs, labels=inputs["input_ids"]).logits
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)

    model.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    again = models.load(str(tmp_path), "main", "float32").model
    assert again.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert again.lm_head.weight is again.shared.weight
