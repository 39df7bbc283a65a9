"""Pools cut into features, for `flix_lightning.adapter.reference`, as leaves that collect gradients."""

from flix_lightning.adapter.reference import split_pools


def pairs(ranks, A, B):
    """Cut pools into each feature's own (A, B)."""
    return {
        feature: tuple(pool.detach().clone().requires_grad_() for pool in own)
        for feature, own in split_pools(ranks, A, B).items()
    }
