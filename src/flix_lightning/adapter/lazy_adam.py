"""Adam whose step costs what the active rows cost, however many rows there are."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class LazyAdam(torch.optim.Optimizer):
    """Adam (Kingma & Ba, 2015) that moves only the rows in the sparse gradients, each by itself.

    Every row has its own moments and its own count of steps for the bias correction. The other rows stay as
    they are; dense Adam would move them by what is left of their momentum. If every step has every row,
    LazyAdam equals Adam. `torch.optim.SparseAdam` has one count of steps for all rows, so the first step of a
    rare row is up to 3.2 times too large. There is no weight decay. The moments are dense and made at the
    first step.

    Args:
        params: pools [R + 1, d], or groups of them.
        lr, betas, eps: as in `torch.optim.Adam`.
        ratios: what `lr` is multiplied by for each row: float [R + 1]; None is 1 for all.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple = (0.9, 0.999),
        eps: float = 1e-8,
        ratios: Tensor | None = None,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})
        self._ratios = None if ratios is None else ratios.to(self.param_groups[0]["params"][0])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the rows in the gradients, which must be sparse; return what `closure` returns."""
        with torch.enable_grad():
            loss = closure() if closure else None
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
        change = mean.div_(square.sqrt_().add_(eps))
        if self._ratios is not None:
            change *= self._ratios[rows, None]
        pool.index_add_(0, rows, change, alpha=-lr)


def clip_sparse_grad_norm_(pools: Sequence[nn.Parameter], max_norm: float) -> Tensor:
    """Coalesce and clip sparse gradients [R + 1, d] as torch's `clip_grad_norm_`; return the norm before."""
    trained = [pool for pool in pools if pool.grad is not None]
    for pool in trained:
        pool.grad = pool.grad.coalesce()
    values = [pool.grad.values() for pool in trained]
    norm = nn.utils.get_total_norm(values)
    torch._foreach_mul_(values, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm
