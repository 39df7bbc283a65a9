"""Equation 2 of the paper in plain PyTorch, one example at a time: what the fast path must equal."""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn


def split_pools(ranks: Mapping[str, int], A: Tensor, B: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Cut pools A [R, d_in] and B [R, d_out] into the (A, B) of each feature, in the order of `ranks`."""
    sizes, total = list(ranks.values()), sum(ranks.values())
    return dict(zip(ranks, zip(A[:total].split(sizes), B[:total].split(sizes), strict=True), strict=True))


def update(
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    features: Collection[str],
    factor: Callable[[str], float] = lambda feature: 1.0,
) -> Tensor | int:
    """Return the sum of the features' updates [d_out, d_in]; a feature without a pair contributes nothing."""
    return sum(
        factor(feature) * pairs[feature][1].T @ pairs[feature][0] for feature in set(features) & pairs.keys()
    )


def project(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    features: Sequence[Collection[str]],
    factor: Callable[[str], float] = lambda feature: 1.0,
) -> Tensor:
    """Project x [batch, ..., d_in] by weight [d_out, d_in], each example with the update of its features."""
    outputs = [
        x_i @ (weight + update(pairs, names, factor)).T for x_i, names in zip(x, features, strict=True)
    ]
    return torch.stack(outputs) + (0 if bias is None else bias)


@torch.no_grad()
def merge(
    base: nn.Module, state: Mapping[str, Tensor], ranks: Mapping[str, int], features: Collection[str]
) -> nn.Module:
    """Copy a base model that is not adapted, with the update of one example's features added to its weights.

    `state` is the `state_dict` of an adapter whose `space.ranks` are `ranks`.
    """
    model = copy.deepcopy(base)
    for name in {key.rpartition(".")[0] for key in state}:
        module = model.get_submodule(name)
        pools = split_pools(ranks, state[f"{name}.A"].double(), state[f"{name}.B"].double())
        change = torch.as_tensor(update(pools, features))
        # Conv1D (GPT-2's) holds its weight transposed.
        change = change if isinstance(module, nn.Linear) else change.T
        # A new weight, as several projections may share the old one.
        module.weight = nn.Parameter(module.weight + change.to(module.weight.dtype))
    return model
