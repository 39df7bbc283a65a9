"""Products with frozen weights, computed by oneDNN on a CPU.

PyTorch gives products of float32 to MKL, which uses AVX-512 on Intel's processors only: on AMD's, they take
twice as long as necessary. Those of bfloat16 it gives to oneDNN; but where an input [batch, length, d] is no
plain matrix, it multiplies each example by a copy of the weight.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

MIN_SIZE = 2**20  # multiply-adds from which oneDNN is faster: each call costs ten microseconds


def _types() -> tuple[torch.dtype, ...]:
    if not torch.backends.mkldnn.is_available():
        return ()
    return (
        (torch.float32, torch.bfloat16) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (torch.float32,)
    )


TYPES = _types()  # that oneDNN multiplies on this processor


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x weightᵀ + bias`` without autograd, for x [..., d_in], weight [d_out, d_in], bias [d_out]."""
    return (_onednn if _fits_onednn(x, weight) else functional.linear)(x, weight, bias)


class FrozenLinear(nn.Linear):
    """`nn.Linear` that uses oneDNN if its weight is frozen and its input is large and on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Project x [..., in_features] to [..., out_features]."""
        if self.weight.requires_grad or not _fits_onednn(x, self.weight):
            return super().forward(x)
        return _Product.apply(x, self.weight, self.bias)


def use_onednn(model: nn.Module) -> None:
    """Turn each `nn.Linear` of a model into a `FrozenLinear`, in place."""
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
    # The operator to which torch.compile turns a linear layer on a CPU, with no function fused to it.
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _fits_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()  # torch.compile calls oneDNN itself
        and x.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in TYPES
        and x.numel() * len(weight) >= MIN_SIZE
        and not torch.is_autocast_enabled("cpu")
    )
