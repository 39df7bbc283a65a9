"""The loss of target tokens, from their logits alone: all logits of a large vocabulary fill the memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from flix_lightning.models.base import Base

IGNORED = -100  # transformers' label of a position without loss
CHUNK = 2**22  # logits that are float32 at once: 16 MB


def token_loss(base: Base, batch: Mapping[str, Tensor], count: int) -> Tensor:
    """Return the sum of the cross-entropies of a batch's target tokens, whose logits alone are computed.

    Args:
        base: the base model, whose adapter's rows are in force.
        batch: input_ids, attention_mask and labels, long [batch, length]; a decoder-only model's labels
            stand beside its inputs.
        count: labels that are not IGNORED. It is known from the data: to count on a GPU would wait for it.
    """
    model, labels = base.model, batch["labels"]
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if base.is_encoder_decoder:
        starts = base.starts(labels)
        # The model's own shifting differs from generation in how it starts mBART's targets.
        read = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, 0)
        inputs["decoder_input_ids"] = torch.cat([starts, read], dim=1)
        labels = functional.pad(labels, (starts.shape[1] - 1, 0), value=IGNORED)
    else:
        labels = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)  # each token predicts the next
    labels = labels.flatten()
    positions = torch.nonzero_static(labels != IGNORED, size=count).squeeze(1)
    head = model.get_output_embeddings()
    is_layer = isinstance(head, nn.Linear)  # FSMT's is the input embedding, whose weight it takes
    with _at_positions(positions, head) if is_layer else nullcontext():
        logits = model(**inputs, use_cache=False).logits
    logits = logits if is_layer else logits.flatten(0, 1)[positions]
    return _CrossEntropy.apply(logits, labels[positions])


@contextmanager
def _at_positions(positions: Tensor, head: nn.Module) -> Iterator[None]:
    """Apply `head` to its input [batch, length, width] only at `positions` [n] of batch · length."""

    def select(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0].flatten(0, 1).index_select(0, positions),)

    hook = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


class _CrossEntropy(torch.autograd.Function):
    """The sum over n of the cross-entropy of logits [n, V] and labels [n], in float32, in chunks.

    Beside the logits and their gradient, in the logits' own type, only a chunk is kept.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        ctx.save_for_backward(logits, labels)
        chunks = _chunks(logits, labels)
        losses = [functional.cross_entropy(_exact(part), own, reduction="sum") for part, own in chunks]
        return torch.stack(losses).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, labels = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for (part, own), (part_gradient, _) in zip(
            _chunks(logits, labels), _chunks(gradient, labels), strict=True
        ):
            change = _exact(part).softmax(dim=1)
            change[torch.arange(len(own), device=own.device), own] -= 1
            part_gradient.copy_(change.mul_(grad))
        return gradient, None


def _chunks(logits: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    size = max(1, CHUNK // logits.shape[1])
    return zip(logits.split(size), labels.split(size), strict=True)


def _exact(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
