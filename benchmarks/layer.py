"""One projection, forward and backward: the adapter's own cost."""

from collections.abc import Callable

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from benchmarks import contenders
from benchmarks.clock import interleave, milliseconds
from benchmarks.contenders import ACTIVE_RANK, AGAIN, FROZEN, LORA
from benchmarks.measure import Measure, measure
from flix_lightning.adapter.projection import AdaptedProjection
from flix_lightning.adapter.routing import Routing

WIDTHS = (512, 1024)
BATCH, LENGTH = 32, 64
BAR = 0.90


def time_layer(width: int, rounds: int) -> Measure:
    """Time a projection of width x width on 32 examples of 64 tokens, each with its own features."""
    calls = {
        FROZEN: _call(_projection(width)),
        LORA: _call(_lora(width, ACTIVE_RANK)),
        AGAIN: _call(_lora(width, ACTIVE_RANK)),
        f"PEFT LoRA r={contenders.MATCHED_RANK}": _call(_lora(width, contenders.MATCHED_RANK)),
        **{contenders.name(count): _flix(width, count) for count in contenders.COUNTS},
    }
    figures = milliseconds(interleave(calls, rounds))
    bars = {contenders.name(count): BAR for count in contenders.COUNTS} if width == WIDTHS[0] else {}
    return measure(f"one layer, d = {width}, forward and backward", "ms", figures, LORA, bars)


def _projection(width: int) -> nn.Linear:
    return nn.Linear(width, width, bias=False).requires_grad_(False)


def _lora(width: int, rank: int) -> nn.Module:
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=["0"])
    return inject_adapter_in_model(config, nn.Sequential(_projection(width)))


def _flix(width: int, features: int) -> Callable[[], None]:
    space, routing = contenders.space(features), Routing()
    projection = AdaptedProjection("0", _projection(width), space, routing, seed=0)
    call, named = _call(projection), contenders.examples(features, BATCH)

    def routed() -> None:
        with routing.use(space.rows(named)):
            call()

    return routed


def _call(module: nn.Module) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(0)
    width = next(module.parameters()).shape[-1]
    x = torch.randn(BATCH, LENGTH, width, generator=generator).requires_grad_()
    grad = torch.randn(BATCH, LENGTH, width, generator=generator)

    def call() -> None:
        x.grad = None
        module.zero_grad()
        module(x).backward(grad)

    return call
