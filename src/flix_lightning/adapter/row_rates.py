"""A learning rate for each kind of features: rows that few examples of a batch train may need a lower one."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from flix_lightning.adapter.features import FeatureSpace
from flix_lightning.common.names import text_keys


def row_ratios(space: FeatureSpace, ratios: Mapping[str, float]) -> Tensor:
    """Return what the learning rate of each row is multiplied by: float [R + 1], 1 for other kinds.

    Args:
        space: the features and their rows.
        ratios: kind -> the ratio of the learning rate of its features to that of the optimizer.
    """
    found = torch.ones(space.total_rank + 1)
    for kind, ratio in text_keys("learning rate ratios", ratios).items():
        found[space.range_of([name for name in space.ranks if name.partition(":")[0] == kind])] = ratio
    return found


def scale_steps(optimizer: torch.optim.Optimizer, pools: Sequence[Tensor], ratios: Tensor) -> None:
    """Multiply what each step of a dense optimizer changes in each row.

    A change is proportional to the learning rate, as Adam's without weight decay is, so this gives each row a
    learning rate of its own. torch's optimizers have one for a whole tensor.

    Args:
        optimizer: calls this before and after each of its steps.
        pools: its parameters [R + 1, d], on one device.
        ratios: float [R + 1].
    """
    ratios = ratios.to(pools[0])
    rows = (ratios != 1).nonzero()[:, 0]
    weights = ratios[rows, None]
    before: list[Tensor] = []

    def keep(*_: object) -> None:
        before[:] = [pool.detach()[rows] for pool in pools]

    @torch.no_grad()
    def scale(*_: object) -> None:
        for pool, old in zip(pools, before, strict=True):
            pool[rows] = old.lerp(pool[rows], weights)

    optimizer.register_step_pre_hook(keep)
    optimizer.register_step_post_hook(scale)
