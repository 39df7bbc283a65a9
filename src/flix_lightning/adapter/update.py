"""The low-rank update of a batch, as two autograd functions around the base projection.

Autograd alone would keep the gathered rows of every projection for backward. These functions gather them
again: they keep x and its product with A's rows, as plain LoRA does.

Shapes: x [n · batch, ..., d_in], where the n inputs of an example are neighbours; index, long [batch, r], or
[1, r] if all examples share their rows; pools A [R + 1, d_in] and B [R + 1, d_out]. The last row of a pool is
zero, and so is its gradient. Sparse gradients are uncoalesced and hold the rows in index alone.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from flix_lightning.adapter import onednn


def down(
    x: Tensor, A: Tensor, index: Tensor, dtype: torch.dtype, sparse: bool = False
) -> tuple[Tensor, Tensor]:
    """Return x for the base projection, and ``A[index[i]] x[i]ᵀ`` of each example i (eq. 2 of the paper).

    The products are [batch, r, n · ...], of type `dtype`. The base's gradient of x comes back through here,
    so that one product adds the update's gradient to it.
    """
    passed, product = _Down.apply(x, A, index, dtype, sparse)
    return passed if x.requires_grad else x, product


def up(output: Tensor, product: Tensor, B: Tensor, index: Tensor, sparse: bool = False) -> Tensor:
    """Add ``product[i]ᵀ B[index[i]]`` of each example i to the base's `output`, in place.

    `product` comes from `down`. An update of zero leaves `output` as it is, bit for bit.
    """
    return _Up.apply(output, product, B, index, sparse)


def add_update(output: Tensor, x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """Add ``(x[i] A[i]ᵀ) B[i]`` of each example i to `output` in place, for A, B of `gather`; no backward."""
    return _add_product(output, _matmul(A, _by_example(x, A).mT), B)


def gather(pool: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the rows of a pool [R + 1, d] that `index` [batch, r] names: [batch, r, d]."""
    return functional.embedding(index, pool).to(dtype)


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, A, index, dtype, sparse):
        ctx.save_for_backward(x, A, index)
        ctx.sparse = sparse
        ctx.set_materialize_grads(False)
        rows = gather(A, index, dtype)
        return x.view_as(x), _matmul(rows, _by_example(x, rows).mT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_x: Tensor | None, grad_product: Tensor) -> tuple[Tensor | None, ...]:
        x, A, index = ctx.saved_tensors
        if ctx.needs_input_grad[0]:
            grad_x = _add_product(grad_x.clone(), grad_product, gather(A, index, grad_product.dtype))
        rows = _matmul(grad_product, _by_example(x, grad_product))
        return grad_x, _pool_gradient(rows, A, index, ctx.sparse), None, None, None


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(ctx, output, product, B, index, sparse):
        ctx.save_for_backward(product, B, index)
        ctx.sparse = sparse
        # Detached: autograd's own way to change an input copies the gradient of a view, as with a bias.
        return _add_product(output, product, gather(B, index, product.dtype)).detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        product, B, index = ctx.saved_tensors
        by_example = _by_example(grad, product)
        grad_product = _matmul(gather(B, index, product.dtype), by_example.mT)
        rows = _matmul(product, by_example)
        return grad, grad_product, _pool_gradient(rows, B, index, ctx.sparse), None, None


def _add_product(to: Tensor, product: Tensor, rows: Tensor) -> Tensor:
    """Add productᵀ rows [batch, n · ..., d] to `to` [n · batch, ..., d], in place if `to` is contiguous."""
    if to.dtype == product.dtype and product.shape[0] > 1:
        to = to.contiguous()
        _by_example(to, product).baddbmm_(product.mT, rows)
        return to
    # Cast last, so that an update of zero leaves `to` as it is, bit for bit.
    return to.add_(_matmul(product.mT, rows).to(to.dtype).view_as(to))


def _matmul(left: Tensor, right: Tensor) -> Tensor:
    """Multiply [batch, n, k] by [batch, k, m]; a batch of 1, of shared rows, may go to oneDNN."""
    return onednn.product(left[0], right[0].mT)[None] if left.shape[0] == 1 else torch.bmm(left, right)


def _pool_gradient(rows: Tensor, pool: Tensor, index: Tensor, sparse: bool) -> Tensor:
    """Return the gradient of a pool from those of its gathered rows [batch, r, d]."""
    return torch.ops.aten.embedding_backward(rows.to(pool.dtype), index, len(pool), -1, False, sparse)


def _by_example(x: Tensor, like: Tensor) -> Tensor:
    """View x [n · batch, ..., d] as [batch, n · ..., d], with the batch size and type of `like`."""
    if x.ndim == 3 and x.shape[0] == like.shape[0] and x.dtype == like.dtype:
        return x  # `reshape` and `to` would take a seventh of the time of a one-token update
    return x.reshape(like.shape[0], -1, x.shape[-1]).to(like.dtype)
