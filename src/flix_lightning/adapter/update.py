"""The low-rank update of a batch, as two autograd functions around the base projection.

Autograd by itself would keep the gathered rows of every projection for backward. These gather them again:
what is kept is x and its product with A's rows, as plain LoRA keeps them. Where there is no backward, `added`
does both.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from flix_lightning.adapter import onednn as products


def down(
    x: Tensor, A: Tensor, index: Tensor, trained: Tensor | None, dtype: torch.dtype, sparse: bool = False
) -> tuple[Tensor, Tensor]:
    """Give x for the base projection, and ``A[index[i]] x[i]ᵀ`` of each example i (eq. 2 of the paper).

    The base's gradient of x comes back through here, so that the product itself adds the update's to it.

    Args:
        x: what the projection is given, [n · batch, ..., d_in]: n inputs an example, side by side.
        A: pool [R + 1, d_in]; the last row is the null row, and gets no gradient.
        index: long [batch, r]; of a batch whose examples all have the same rows, [1, r].
        trained: as `index`: where the rows' gradients go, of which the null row takes none; None is `index`.
        dtype: of the products, [batch, r, n · ...].
        sparse: give A an uncoalesced sparse gradient, of the rows in `trained` alone.
    """
    through, product = _Down.apply(x, A, index, trained, dtype, sparse)
    return through if x.requires_grad else x, product


def up(
    output: Tensor, product: Tensor, B: Tensor, index: Tensor, trained: Tensor | None, sparse: bool = False
) -> Tensor:
    """Give ``output[i] + product[i]ᵀ B[index[i]]`` for each example i, in the place of `output`.

    Where an update is zero, that is `output` bit for bit.

    Args:
        output: what the base projection gives, [n · batch, ..., d_out].
        product: of `down`.
        B: pool [R + 1, d_out].
        index, trained, sparse: as in `down`.
    """
    return _Up.apply(output, product, B, index, trained, sparse)


def added(output: Tensor, x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """Give ``output[i] + (x[i] A[i]ᵀ) B[i]`` for each example i, in the place of `output`; no backward.

    Args:
        output, x: as in `down` and `up`.
        A: of each example, what `gather` gives [batch, r, d_in].
        B: [batch, r, d_out].
    """
    return _add(output, _product(x, A), B)


def gather(pool: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    """Give the rows of a pool [R + 1, d] that `index` [batch, r] names: [batch, r, d]."""
    return functional.embedding(index, pool).to(dtype)


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        A: Tensor,
        index: Tensor,
        trained: Tensor | None,
        dtype: torch.dtype,
        sparse: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, A, index, trained)
        ctx.sparse = sparse
        ctx.set_materialize_grads(False)
        return x.view_as(x), _product(x, gather(A, index, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_x: Tensor | None, grad_product: Tensor) -> tuple[Tensor | None, ...]:
        x, A, index, trained = ctx.saved_tensors
        if ctx.needs_input_grad[0]:
            grad_x = _add(grad_x.clone(), grad_product, gather(A, index, grad_product.dtype))
        rows = _times(grad_product, _by_example(x, grad_product))
        return grad_x, _pool_gradient(rows, A, index, trained, ctx.sparse), None, None, None, None


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        product: Tensor,
        B: Tensor,
        index: Tensor,
        trained: Tensor | None,
        sparse: bool,
    ) -> Tensor:
        ctx.save_for_backward(product, B, index, trained)
        ctx.sparse = sparse
        # Autograd's own way to change an input copies the gradient of one that is a view, as with a bias.
        return _add(output, product, gather(B, index, product.dtype)).detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        product, B, index, trained = ctx.saved_tensors
        by_example = _by_example(grad, product)
        grad_product = _times(gather(B, index, product.dtype), by_example.mT)
        rows = _times(product, by_example)
        return grad, grad_product, _pool_gradient(rows, B, index, trained, ctx.sparse), None, None, None


def _product(x: Tensor, rows: Tensor) -> Tensor:
    """Multiply A's rows [batch, r, d_in] by x [n · batch, ..., d_in] transposed: [batch, r, n · ...]."""
    return _times(rows, _by_example(x, rows).mT)


def _add(to: Tensor, product: Tensor, rows: Tensor) -> Tensor:
    """Add product [batch, r, n · ...] transposed times rows [batch, r, d] to `to` [n · batch, ..., d].

    In place, or in a copy where `to` is not contiguous.
    """
    if to.dtype == product.dtype and product.shape[0] > 1:
        to = to.contiguous()
        _by_example(to, product).baddbmm_(product.mT, rows)
        return to
    # Cast last, so that an update of zero leaves `to` as it is, bit for bit.
    return to.add_(_times(product.mT, rows).to(to.dtype).view_as(to))


def _times(left: Tensor, right: Tensor) -> Tensor:
    """Multiply [batch, n, k] by [batch, k, m]; where all examples have the same rows, it is one product."""
    return products.product(left[0], right[0].mT)[None] if left.shape[0] == 1 else torch.bmm(left, right)


def _pool_gradient(rows: Tensor, pool: Tensor, index: Tensor, trained: Tensor | None, sparse: bool) -> Tensor:
    """The gradient of a pool from those of the rows [batch, r, d] that were gathered."""
    # To leave the null row out takes time, and is needed only where it stands for frozen rows: its own
    # gradient is zero.
    left_out = -1 if trained is None else len(pool) - 1
    return torch.ops.aten.embedding_backward(
        rows.to(pool.dtype), index if trained is None else trained, len(pool), left_out, False, sparse
    )


def _by_example(x: Tensor, like: Tensor) -> Tensor:
    """View x [n · batch, ..., d] as [batch, n · ..., d]; batch and type are those of `like`."""
    if x.ndim == 3 and x.shape[0] == like.shape[0] and x.dtype == like.dtype:
        return x  # where `reshape` and `to` would be a seventh of what one token's update takes
    return x.reshape(like.shape[0], -1, x.shape[-1]).to(like.dtype)
