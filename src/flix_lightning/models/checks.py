"""Checks of what a base model can do, by running it on a few tokens."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from flix_lightning.adapter.layout import sample_tokens, text_logits
from flix_lightning.common.errors import UserError

#: Settings of a config that may be the number of positions, which models may have a few more or fewer of.
POSITIONS = (
    "max_position_embeddings", "max_encoder_position_embeddings", "max_decoder_position_embeddings",
    "max_source_positions", "max_target_positions", "n_positions", "n_ctx", "context_length", "max_seq_len",
)  # fmt: skip
MARGIN = 16


@torch.no_grad()
def check_causal(model: PreTrainedModel) -> None:
    """Raise UserError as `text_logits`, or if a decoder-only model's logits depend on later tokens."""
    ids = sample_tokens(model, 1, 8)
    logits = text_logits(model, input_ids=ids)[:, :-1]
    ids[0, -1] += 1
    others = text_logits(model, input_ids=ids)[:, :-1]
    if differ(logits, others):
        raise UserError(
            f"{type(model).__name__} sees the tokens that it is to predict, so it cannot learn to generate: "
            "take a decoder (for BERT and the like: is_decoder must be true in config.json)"
        )


def differ(logits: Tensor, others: Tensor) -> bool:
    """Whether logits differ by more than rounding; NaN differs from all, infinity not from itself."""
    tolerance = max(torch.finfo(logits.dtype).eps, torch.finfo(torch.float32).eps) ** 0.5
    gaps = (logits - others).abs()[logits != others]
    return not (gaps <= tolerance * logits.nan_to_num(0, 0, 0).abs().max()).all()


@torch.no_grad()
def check_lengths(model: PreTrainedModel, decoder_start: int, max_input: int, max_target: int) -> None:
    """Check that a base model, not adapted yet, has positions for the longest inputs and targets.

    Args:
        model: the base model, on a CPU: a GPU reports no missing position but fails for good.
        decoder_start: tokens that an encoder-decoder reads before a target.
        max_input, max_target: `data.max_input_length` and `data.max_target_length`.

    Raises:
        UserError: it has too few, or their meaning would follow from the longest text of a batch; naming the
            largest length that fits.
    """
    one = sample_tokens(model, 1, 1)

    def run(tokens: int) -> None:
        model(one.expand(1, tokens), use_cache=False)

    def encode(tokens: int) -> None:
        encoder(one.expand(1, tokens))

    def decode(tokens: int) -> None:
        model(one, decoder_input_ids=one.expand(1, tokens), use_cache=False)

    name = type(model).__name__
    if model.config.is_encoder_decoder:
        encoder, decoder, unused = model.get_encoder(), model.get_decoder(), decoder_start - 1
        fitting = {
            "data.max_input_length": (max_input, _largest(model, encoder, encode, max_input)),
            "data.max_target_length": (
                max_target,
                _largest(model, decoder, decode, max_target + unused) - unused,
            ),
        }
        for key, (length, limit) in fitting.items():
            if limit < length:
                raise UserError(f"{key}={length}, but {name} takes at most {limit}: take {key}={limit}")
        return
    total, rotary = max_input + max_target, _largest_rotary(model)
    if (limit := min(_largest(model, model, run, total), rotary)) < total:
        both = f"data.max_input_length={max_input} and data.max_target_length={max_target}"
        cure = f"data.max_input_length={limit - max_target}" if limit > max_target else "smaller ones"
        reason = ", as its positions then follow from the longest text of a batch" * (limit == rotary)
        raise UserError(f"{both} come to more than the {limit} tokens that {name} takes{reason}: take {cure}")


def _largest_rotary(model: PreTrainedModel) -> float:
    """Return how many tokens a batch may have before its longest text changes the positions of the others."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    limits = [math.inf]
    for kind in [rope, *rope.values()]:  # the values may be those of each type of layer
        rope_type = kind.get("rope_type", "") if isinstance(kind, dict) else ""
        if rope_type == "longrope":
            limits.append(kind["original_max_position_embeddings"])
        elif "dynamic" in rope_type:
            limits.append(config.max_position_embeddings)
    return min(limits)


class _FirstLayerDone(Exception):  # noqa: N818 - no error
    pass


def _largest(model: PreTrainedModel, part: nn.Module, run: Callable[[int], None], length: int) -> int:
    """Return the largest number of tokens, up to `length`, that `part` takes up to its first layer's end."""
    configs = [model.config, model.config.get_text_config()]
    known = [getattr(config, key, None) for config in configs for key in POSITIONS]
    known = [one for one in known if isinstance(one, int)]
    if not known or length + MARGIN <= min(known):
        return length

    def stop(*_: object) -> None:
        raise _FirstLayerDone

    def fits(tokens: int) -> bool:
        try:
            run(tokens)
        except _FirstLayerDone:
            return True
        except Exception:  # whatever a model raises for a position that it lacks
            return False
        return True

    layers = [layer for layer in part.modules() if isinstance(layer, GradientCheckpointingLayer)]
    handles = [layer.register_forward_hook(stop) for layer in layers[:1]]
    try:
        fitting, failing = 1, min(length, max(known) + MARGIN)
        if fits(failing) or not fits(1):
            return length
        while failing - fitting > 1:
            middle = (fitting + failing) // 2
            fitting, failing = (middle, failing) if fits(middle) else (fitting, middle)
        return fitting
    finally:
        for handle in handles:
            handle.remove()
