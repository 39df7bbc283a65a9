"""Equation 2 the slow way, one example at a time: what the adapter's tests compare with.

Nothing here uses the implementation; it knows only that a feature's rows follow those of the one before it.
"""

import copy

import torch


def pairs(ranks, A, B):
    """Cut pools into each feature's own (A, B), as leaves that collect gradients."""
    result, start = {}, 0
    for feature, rank in ranks.items():
        result[feature] = tuple(
            pool[start : start + rank].detach().clone().requires_grad_() for pool in (A, B)
        )
        start += rank
    return result


def update(pairs_of, features, d_in, d_out):
    """Add up the rank-one matrices [d_out, d_in] of the distinct known features of one example."""
    total = torch.zeros(d_out, d_in, dtype=torch.float64)
    for feature in set(features):
        for a, b in zip(*pairs_of.get(feature, ([], [])), strict=True):
            total = total + torch.outer(b, a)
    return total


def project(x, weight, bias, pairs_of, features):
    """Project x [batch, ..., d_in] by weight [d_out, d_in], each example with an update of its own."""
    d_out, d_in = weight.shape
    return torch.stack(
        [
            torch.nn.functional.linear(example, weight + update(pairs_of, names, d_in, d_out), bias)
            for example, names in zip(x, features, strict=True)
        ]
    )


def merged(base, state, ranks, features):
    """Copy the `base` model with one example's update added to its weights."""
    model = copy.deepcopy(base)
    with torch.no_grad():
        for name in {key[:-2] for key in state}:
            module = model.get_submodule(name)
            A, B = state[f"{name}.A"], state[f"{name}.B"]
            change = update(pairs(ranks, A, B), features, A.shape[1], B.shape[1]).detach()
            linear = isinstance(module, torch.nn.Linear)
            module.weight += (change if linear else change.T).to(module.weight.dtype)
    return model
