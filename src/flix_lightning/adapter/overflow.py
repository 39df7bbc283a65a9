"""Overflow in float16 that the logits do not show: the code of T5, BART and others clamps hidden states."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

#: Share of float16's largest number that only an overflow reaches. Clamped numbers have a share of 0.985.
_SHARE = 0.98


@contextmanager
def watch_overflow(model: nn.Module) -> Iterator[Callable[[], bool]]:
    """Watch the float16 outputs of the model's layers; yield a function that says whether any overflowed.

    Only a call of that function waits for a GPU.
    """
    largest: list[torch.Tensor] = []

    def note(_: nn.Module, __: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.dtype == torch.float16:
            largest[:] = [torch.stack([hidden.abs().amax(), *largest]).amax()]

    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield lambda: any(bool(one >= _SHARE * torch.finfo(one.dtype).max) for one in largest)
    finally:
        for handle in handles:
            handle.remove()
