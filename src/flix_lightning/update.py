"""The low-rank update of a batch, added to what the base gives, as one autograd function."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def add_update(
    output: Tensor,
    x: Tensor,
    A: Tensor,
    B: Tensor,
    index: Tensor,
    trained: Tensor | None,
    dtype: torch.dtype,
    sparse: bool = False,
) -> Tensor:
    """Give ``output[i] + (x[i] A[index[i]]ᵀ) B[index[i]]`` for each example i (eq. 2 of the paper).

    Where an update is zero, that is `output` bit for bit.

    Args:
        output: what the base projection gives, [n · batch, ..., d_out]: n inputs an example, side by side.
        x: what it was given, [n · batch, ..., d_in].
        A: pool [R + 1, d_in]; the last row is the null row, and gets no gradient.
        B: pool [R + 1, d_out]; likewise.
        index: long [batch, r]; of a batch whose examples all have the same rows, [1, r].
        trained: as `index`: where the rows' gradients go, of which the null row takes none; None is `index`.
        dtype: of the products.
        sparse: give A and B uncoalesced sparse gradients, of the rows in `trained` alone.
    """
    if torch.is_grad_enabled():
        return _AddUpdate.apply(output, x, A, B, index, trained, dtype, sparse)
    return _add(output, x, A, B, index, dtype)[0]


class _AddUpdate(torch.autograd.Function):
    """Autograd by itself would keep the gathered rows of every projection for backward.

    This gathers them again: what is kept is x and its product with A's rows, as plain LoRA keeps them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        x: Tensor,
        A: Tensor,
        B: Tensor,
        index: Tensor,
        trained: Tensor | None,
        dtype: torch.dtype,
        sparse: bool,
    ) -> Tensor:
        updated, product = _add(output, x, A, B, index, dtype)
        ctx.save_for_backward(x, product, A, B, index, trained)
        ctx.sparse = sparse
        return updated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, product, A, B, index, trained = ctx.saved_tensors
        by_example = _by_example(grad, index).to(product.dtype)
        grad_product = torch.bmm(by_example, _gather(B, index, product.dtype).mT)
        grad_x = None
        if ctx.needs_input_grad[1]:
            grad_x = torch.bmm(grad_product, _gather(A, index, product.dtype)).to(x.dtype).view(x.shape)
        grad_A = torch.bmm(grad_product.mT, _by_example(x, index).to(product.dtype))
        grad_B = torch.bmm(product.mT, by_example)
        null_row = len(A) - 1
        # To leave the null row out of a sparse gradient costs a search, and is needed only where it stands
        # for frozen rows: its own gradient is zero.
        left_out = -1 if ctx.sparse and trained is None else null_row
        gradient_rows = index if trained is None else trained
        grad_A, grad_B = (
            torch.ops.aten.embedding_backward(
                rows.to(A.dtype), gradient_rows, len(A), left_out, False, ctx.sparse
            )
            for rows in (grad_A, grad_B)
        )
        return grad, grad_x, grad_A, grad_B, None, None, None, None


def _add(
    output: Tensor, x: Tensor, A: Tensor, B: Tensor, index: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    product = torch.bmm(_by_example(x, index).to(dtype), _gather(A, index, dtype).mT)
    rows = _gather(B, index, dtype)
    if output.dtype == dtype:
        return torch.baddbmm(_by_example(output, index), product, rows).view(output.shape), product
    # Cast last, so that an update of zero leaves the base's output as it is, bit for bit.
    return output + torch.bmm(product, rows).to(output.dtype).view(output.shape), product


def _by_example(x: Tensor, index: Tensor) -> Tensor:
    """View x [n · batch, ..., d] as [batch, n · ..., d]."""
    return x.reshape(len(index), -1, x.shape[-1])


def _gather(pool: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    return functional.embedding(index, pool).to(dtype)
