"""The loss of target tokens, in chunks, against PyTorch's own in float64."""

import copy
from statistics import median

import pytest
import torch
from tiny_models import ARCHITECTURES, FEATURES, adapt, batch, build
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from flix_lightning.adapter import onednn
from flix_lightning.models import loss
from flix_lightning.models.base import Base
from flix_lightning.models.loss import IGNORED, _CrossEntropy, token_loss

TOKENS, VOCABULARY = 7, 50


@pytest.fixture(autouse=True)
def chunks_of_three(monkeypatch):
    monkeypatch.setattr(loss, "CHUNK", 3 * VOCABULARY + 1)


def tokens(dtype):
    torch.manual_seed(0)
    logits = (4 * torch.randn(TOKENS, VOCABULARY)).to(dtype).requires_grad_()
    return logits, torch.randint(VOCABULARY, (TOKENS,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_loss_and_gradient_are_exact_up_to_the_types_rounding(dtype):
    logits, labels = tokens(dtype)
    exact = logits.detach().double().requires_grad_()
    found, expected = _CrossEntropy.apply(logits, labels), cross_entropy(exact, labels, reduction="sum")
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    (0.3 * found).backward()
    (0.3 * expected).backward()
    assert logits.grad.dtype == dtype
    assert ((logits.grad - exact.grad).abs() <= torch.finfo(dtype).eps * exact.grad.abs() + 1e-6).all()


class Float32(TorchDispatchMode):
    """Notes the most numbers of float32 that one tensor holds."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        if isinstance(output, torch.Tensor) and output.dtype == torch.float32:
            self.most = max(self.most, output.numel())
        return output


def test_only_a_chunk_of_the_logits_is_ever_float32():
    logits, labels = tokens(torch.bfloat16)
    with Float32() as float32:
        _CrossEntropy.apply(logits, labels).backward()
    assert float32.most == 3 * VOCABULARY


def test_no_target_tokens_cost_nothing():
    logits = torch.zeros(0, VOCABULARY, requires_grad=True)
    found = _CrossEntropy.apply(logits, torch.zeros(0, dtype=torch.long))
    found.backward()
    assert found == 0
    assert logits.grad.shape == (0, VOCABULARY)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_in_bfloat16_has_the_gradients_of_float64_up_to_rounding(architecture, monkeypatch):
    monkeypatch.setattr(onednn, "MIN_SIZE", 0)
    rounded = build(architecture, torch.bfloat16)
    onednn.use_onednn(rounded)
    gradients = []
    for model in (rounded, copy.deepcopy(rounded).double()):
        adapter, inputs = adapt(model), batch(model)
        labels = inputs["labels"] if model.config.is_encoder_decoder else inputs["labels"][:, 1:]
        base = Base(model, None, model.config.is_encoder_decoder)
        with adapter.route(adapter.space.rows(FEATURES)):
            token_loss(base, inputs, int((labels != IGNORED).sum())).backward()
        gradients.append([pool.grad for pool in adapter.parameters()])
    # bfloat16 rounds by 2^-9, here some dozens of times between a pool and the loss.
    errors = [float((found - exact).norm() / exact.norm()) for found, exact in zip(*gradients, strict=True)]
    assert max(errors) < 0.1
    assert median(errors) < 0.03
    assert {pool.dtype for pool in gradients[0]} == {torch.float32}
