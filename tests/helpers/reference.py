"""What tests need beside `flix_lightning.adapter.reference`: pools as leaves, models with merged weights."""

import copy

import torch

from flix_lightning.adapter.reference import split_pools, update


def pairs(ranks, A, B):
    """Cut pools into each feature's own (A, B), as leaves that collect gradients."""
    return {
        feature: tuple(pool.detach().clone().requires_grad_() for pool in own)
        for feature, own in split_pools(ranks, A, B).items()
    }


def merged(base, state, ranks, features):
    """Copy the `base` model with one example's update added to its weights."""
    model = copy.deepcopy(base)
    with torch.no_grad():
        for name in {key[:-2] for key in state}:
            module = model.get_submodule(name)
            pools = split_pools(ranks, state[f"{name}.A"].double(), state[f"{name}.B"].double())
            change = update(pools, features)
            if isinstance(change, torch.Tensor):
                linear = isinstance(module, torch.nn.Linear)
                module.weight += (change if linear else change.T).to(module.weight.dtype)
    return model
