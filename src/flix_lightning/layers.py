"""The layers of a base model, and their compilation for training."""

from functools import wraps

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from flix_lightning.errors import UserError


def layers(model: PreTrainedModel) -> list[nn.Module]:
    """The layers of a model that transformers would checkpoint: its transformer blocks.

    Raises:
        UserError: it has none that say so.
    """
    found = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not found:
        raise UserError(
            f"{type(model).__name__} does not say which of its modules are layers, so that they can be "
            "neither compiled nor checkpointed: leave trainer.compile and trainer.activation_checkpointing"
        )
    return found


def compile_layers(model: PreTrainedModel) -> None:
    """Have torch.compile compile each layer's forward where gradients are kept; generation stays as it is.

    Layer by layer, as one compilation then serves all layers that are alike, and generation with its growing
    cache would be compiled again and again. Lengths and ranks are dynamic.
    """
    for layer in layers(model):
        layer.forward = _where_gradients_are_kept(layer.forward)


def _where_gradients_are_kept(forward):
    compiled = torch.compile(forward, dynamic=True)

    @wraps(forward)
    def either(*args, **options):
        return (compiled if torch.is_grad_enabled() else forward)(*args, **options)

    return either
