"""Equation 2 of the paper in plain PyTorch, one example at a time: what the fast path must equal."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor


def split_pools(ranks: Mapping[str, int], A: Tensor, B: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Cut pools A [R, d_in] and B [R, d_out] into the (A, B) of each feature, in the order of `ranks`."""
    sizes, total = list(ranks.values()), sum(ranks.values())
    return dict(zip(ranks, zip(A[:total].split(sizes), B[:total].split(sizes), strict=True), strict=True))


def update(pairs: Mapping[str, tuple[Tensor, Tensor]], features: Collection[str]) -> Tensor | int:
    """Return the sum of the features' updates [d_out, d_in]; a feature without a pair contributes nothing."""
    return sum(pairs[feature][1].T @ pairs[feature][0] for feature in set(features) & pairs.keys())


def project(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    features: Sequence[Collection[str]],
) -> Tensor:
    """Project x [batch, ..., d_in] by weight [d_out, d_in], each example with the update of its features."""
    outputs = [x_i @ (weight + update(pairs, names)).T for x_i, names in zip(x, features, strict=True)]
    return torch.stack(outputs) + (0 if bias is None else bias)
