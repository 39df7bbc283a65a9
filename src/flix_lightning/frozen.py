"""Products with frozen weights on a CPU, by oneDNN.

PyTorch leaves them to MKL, which keeps its AVX-512 kernels for Intel's processors: on AMD's, products of
float32 take twice as long as the processor needs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: Multiply-adds from which a product is oneDNN's: it takes ten microseconds to begin.
WORTH_IT = 2**20


class FrozenLinear(nn.Linear):
    """`nn.Linear`, faster where its weight is frozen, and its input on a CPU and not small."""

    def forward(self, x: Tensor) -> Tensor:
        """Project x [..., in_features] to [..., out_features]."""
        if not self._by_onednn(x):
            return super().forward(x)
        if torch.is_grad_enabled() and x.requires_grad:
            return _Product.apply(x, self.weight, self.bias)
        return _product(x, self.weight, self.bias)

    def _by_onednn(self, x: Tensor) -> bool:
        return (
            x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and x.numel() * self.out_features >= WORTH_IT
            and not self.weight.requires_grad
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()  # which calls oneDNN itself
        )


def use_onednn(model: nn.Module) -> None:
    """Make each `nn.Linear` of a model a `FrozenLinear`, in place, where PyTorch has oneDNN."""
    if not torch.backends.mkldnn.is_available():
        return
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = FrozenLinear


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _product(grad, weight.T), None, None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    # What torch.compile makes of a linear layer on a CPU; without a fused function after it.
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
