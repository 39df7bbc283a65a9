"""The low-rank update of a batch, as one autograd function."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


class LowRankUpdate(torch.autograd.Function):
    """``(x[i] A[index[i]]ᵀ) B[index[i]]`` for each example i (the sum of eq. 2 of the paper).

    Autograd by itself would keep the gathered rows of every projection for backward; this gathers them again,
    so that what is kept is x and its product with A's rows, as plain LoRA keeps them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, A: Tensor, B: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
        """Give the update [batch, n, d_out] in `dtype`, in which it is computed.

        Args:
            ctx: autograd's.
            x: [batch, n, d_in], or [n, d_in] where all examples have the same rows.
            A: pool [R + 1, d_in]; the last row is the null row, and gets no gradient.
            B: pool [R + 1, d_out]; likewise.
            index: long [batch, r], or [r] where all examples have the same rows.
            dtype: of the products.
        """
        product = x.to(dtype) @ functional.embedding(index, A).to(dtype).mT
        ctx.save_for_backward(x, product, A, B, index)
        return product @ functional.embedding(index, B).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        """Give the gradients of x, A and B."""
        x, product, A, B, index = ctx.saved_tensors
        dtype = product.dtype
        grad_product = grad @ functional.embedding(index, B).to(dtype).mT
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_product @ functional.embedding(index, A).to(dtype)).to(x.dtype)
        grad_A = _pool_gradient(A, index, grad_product.mT @ x.to(dtype))
        grad_B = _pool_gradient(B, index, product.mT @ grad)
        return grad_x, grad_A, grad_B, None, None


def _pool_gradient(pool: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    null_row = len(pool) - 1
    return torch.ops.aten.embedding_dense_backward(rows.to(pool.dtype), index, len(pool), null_row, False)
