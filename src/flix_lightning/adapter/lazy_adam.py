"""Adam whose step costs what the active rows cost, however many rows there are."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class LazyAdam(torch.optim.Optimizer):
    """Adam (Kingma & Ba, 2015) for each row by itself: for a row that is not touched, no time passes.

    A step touches the rows in the sparse gradients: those of the features that an example of the effective
    batch has. Only these move, and only their moments and their own counts of steps, by which the bias is
    corrected, change. Dense Adam moves the other rows too, by what is left of their momentum. Where every
    step touches every row, the two are one. There is no weight decay. The moments are dense, of the pools'
    shapes, and made at the first step.

    Args:
        params: pools [R + 1, d], or groups of them.
        lr: learning rate.
        betas: decay of the first and of the second moment.
        eps: added to the root of the second moment.

    Raises:
        RuntimeError: in `step`, a gradient that is not sparse.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the rows that gradients touch; return what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for pool in group["params"]:
                if pool.grad is not None:
                    self._move(pool, group["lr"], *group["betas"], group["eps"])
        return loss

    def _move(self, pool: Tensor, lr: float, beta1: float, beta2: float, eps: float) -> None:
        grad = pool.grad.coalesce()
        rows, grad = grad.indices()[0], grad.values()
        state = self.state[pool]
        if not state:
            state["steps"] = pool.new_zeros(len(pool), 1)
            state["mean"], state["square"] = torch.zeros_like(pool), torch.zeros_like(pool)
        steps, mean, square = (state[key].index_select(0, rows) for key in ("steps", "mean", "square"))
        steps += 1
        # The moments are kept with their bias corrected: the same numbers in fewer passes over the rows.
        mean.lerp_(grad, (beta1 - 1) / torch.expm1(steps * math.log(beta1)))
        square.lerp_(grad * grad, (beta2 - 1) / torch.expm1(steps * math.log(beta2)))
        for key, moved in (("steps", steps), ("mean", mean), ("square", square)):
            state[key].index_copy_(0, rows, moved)
        pool.index_add_(0, rows, mean.div_(square.sqrt_().add_(eps)), alpha=-lr)


def clip_sparse_grad_norm_(pools: Sequence[nn.Parameter], max_norm: float) -> None:
    """As `torch.nn.utils.clip_grad_norm_`, for sparse gradients [R + 1, d], which are coalesced by it."""
    found = [pool for pool in pools if pool.grad is not None]
    for pool in found:
        pool.grad = pool.grad.coalesce()
    values = [pool.grad.values() for pool in found]
    norm = nn.utils.get_total_norm(values)
    torch._foreach_mul_(values, (max_norm / (norm + 1e-6)).clamp(max=1.0))
