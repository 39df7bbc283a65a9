"""Products with weights that autograd need not see, on a CPU by oneDNN.

PyTorch leaves them to MKL, which keeps its AVX-512 kernels for Intel's processors: on AMD's, products of
float32 take twice as long as the processor needs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

#: Multiply-adds from which a product is oneDNN's: it takes ten microseconds to begin.
WORTH_IT = 2**20


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Give ``x weightᵀ + bias``, as `torch.nn.functional.linear` does, but unseen by autograd.

    Args:
        x: [..., d_in].
        weight: [d_out, d_in].
        bias: [d_out].
    """
    return (_onednn if _fits_onednn(x, weight) else functional.linear)(x, weight, bias)


class FrozenLinear(nn.Linear):
    """`nn.Linear`, faster where its weight is frozen, and its input on a CPU and not small."""

    def forward(self, x: Tensor) -> Tensor:
        """Project x [..., in_features] to [..., out_features]."""
        if self.weight.requires_grad or not _fits_onednn(x, self.weight):
            return super().forward(x)
        return _Product.apply(x, self.weight, self.bias)


def use_onednn(model: nn.Module) -> None:
    """Make each `nn.Linear` of a model a `FrozenLinear`, in place."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = FrozenLinear


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _onednn(grad, weight.T), None, None


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    # What torch.compile makes of a linear layer on a CPU; without a fused function after it.
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _fits_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()  # which calls oneDNN itself
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= WORTH_IT
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
    )
