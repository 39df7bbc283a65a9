"""The layers of a model: find them, compile them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from flix_lightning.common.errors import UserError, one_line

# First and later layers of encoder and decoder, with and without padding, for rows that are mixed, uniform or
# empty, each get a graph. Above torch's own limit of 8 graphs, layers would stay uncompiled.
MAX_GRAPHS = 64


def find_layers(model: PreTrainedModel, setting: str) -> list[GradientCheckpointingLayer]:
    """Return the layers of a model, in order; raise UserError if it does not mark those `setting` needs."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            f"{type(model).__name__} does not mark its layers, which {setting} needs: leave it out"
        )
    return layers


def compile_layers(model: PreTrainedModel) -> None:
    """Let torch compile the layers of `model` for training, at the first batches.

    Layers of one kind share their graphs, so a deep model compiles as fast as a shallow one. Generation is
    not compiled: its cache grows with each token, and each size would be compiled again. Raises UserError as
    `find_layers`; or, at the first batch, if torch cannot compile on this machine.
    """
    torch._dynamo.config.recompile_limit = MAX_GRAPHS
    for layer in find_layers(model, "trainer.compile=true"):
        layer.forward = partial(_forward, layer.forward, torch.compile(layer.forward))


def _forward(plain: Callable, compiled: Callable, *args: Any, **options: Any) -> Any:
    try:
        return (compiled if torch.is_grad_enabled() else plain)(*args, **options)
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = one_line(error, 200)
        raise UserError(
            f"torch cannot compile here ({type(error).__name__}: {reason}); it needs a C++ compiler such as "
            "g++, and on a GPU Triton: install them, or set trainer.compile=false"
        ) from error
