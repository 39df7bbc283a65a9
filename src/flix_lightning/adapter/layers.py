"""The layers of a model, in which training time and memory go: which they are, and compiling them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from flix_lightning.common.errors import UserError

#: Graphs that the layers of one model may come to: first layers and later ones, encoder's and decoder's, with
#: and without padding, each for rows that differ, that are alike, and that are none. torch's own limit is 8,
#: after which it leaves layers uncompiled.
GRAPHS = 64


def find_layers(model: PreTrainedModel, setting: str) -> list[GradientCheckpointingLayer]:
    """Give the layers of a model, in order.

    Raises:
        UserError: the model does not say which of its modules are layers, which `setting` needs to know.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            f"{type(model).__name__} does not say which of its modules are layers, so that {setting} cannot "
            "be had: leave it out"
        )
    return layers


def compile_layers(model: PreTrainedModel) -> None:
    """Have torch compile what `model` does in training, layer by layer, at the first batches.

    Layers of one kind share their graphs, so that a deep model compiles no longer than a shallow one.
    Generation stays as it is: its cache grows with each token, and would be compiled over and over.

    Raises:
        UserError: see `find_layers`; in training, torch cannot compile on this machine.
    """
    torch._dynamo.config.recompile_limit = GRAPHS
    for layer in find_layers(model, "trainer.compile=true"):
        layer.forward = partial(_forward, layer.forward, torch.compile(layer.forward))


def _forward(plain: Callable, compiled: Callable, *args: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return plain(*args, **options)
    try:
        return compiled(*args, **options)
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"torch cannot compile here ({type(error).__name__}: {reason}); it needs a C++ compiler, such as "
            "g++, and on a GPU Triton: install them, or set trainer.compile=false"
        ) from error
