"""Which projections an adapter can change: found by running the base on a few tokens.

An update is added example by example, so a projection's input must be [batch, ..., d] or a view of it. Some
models put the sequence first (LED), sort loose tokens (experts), do not run a projection on text at all, or
give it no gradient (DeepSeek's indexer).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from flix_lightning.adapter.overflow import watch_overflow
from flix_lightning.common.errors import UserError, list_names, one_line

BATCH, LENGTH = 3, 7  # that none can be taken for the other, or for a multiple of it

#: Largest change of another example's input, as a share of the change of the example's own.
MAX_LEAK = 0.1


def find_unfit(model: PreTrainedModel, projections: Mapping[str, nn.Module]) -> list[str]:
    """Return the names of the projections that mix examples or get no input or gradient, in order.

    The base runs twice, with other tokens in the first example: only that example's inputs may change.
    Of experts, which get loose tokens, one may get all tokens by chance, so they are judged together.
    Raises UserError as `text_logits`.
    """
    (first, trained), (second, _) = (_run(model, projections, shift) for shift in (0, 1))
    fit = {name: name in trained and _keep_apart(first[name], second[name]) for name in projections}
    groups = defaultdict(list)
    for name in projections:
        groups[_pattern(name)].append(fit[name])
    loose = {name for name, inputs in first.items() if any(x is None or x.ndim < 3 for x in inputs)}
    together = {name: all(groups[_pattern(name)]) for name in loose}
    return [name for name in projections if not together.get(name, fit[name])]


def text_logits(model: PreTrainedModel, **inputs: Tensor) -> Tensor:
    """Return the logits of a plain forward.

    Raises:
        UserError: the model does not run on these inputs alone, or its numbers are not finite.
    """
    try:
        with watch_overflow(model) as overflowed:
            logits = model(**inputs, use_cache=False).logits
    except Exception as error:  # whatever a model's code raises
        reason = one_line(error, 200)
        raise UserError(f"{type(model).__name__} does not run on text alone ({reason})") from error
    # Some models set the logits of tokens that they never say to -inf: only the largest counts.
    if overflowed() or not logits.amax(dim=-1).isfinite().all():
        raise UserError(
            f"the numbers in {type(model).__name__} in {logits.dtype} are not finite: they are too large for "
            "this type (take model.dtype=bfloat16 or float32), or its weights are broken"
        )
    return logits


def find_sizes(projection: nn.Linear | Conv1D) -> tuple[int, int]:
    """Return d_in and d_out of a projection."""
    if isinstance(projection, nn.Linear):  # a four-bit weight is packed into another shape
        return projection.in_features, projection.out_features
    return tuple(projection.weight.shape)


def group_names(names: Iterable[str]) -> str:
    """List dotted names, those that differ in numbers only once: "layers.*.q_proj (12), lm_head (1)"."""
    return list_names([f"{name} ({count})" for name, count in Counter(map(_pattern, names)).items()], 100)


def _pattern(name: str) -> str:
    return re.sub(r"\d+(?=\.)", "*", name)


@torch.enable_grad()
def _run(
    model: PreTrainedModel, projections: Mapping[str, nn.Module], shift: int
) -> tuple[Mapping[str, list[Tensor | None]], set[str]]:
    """Return the inputs of each projection's calls, and which projections get a gradient.

    An input is None if the output does not fit it. `shift` is added to the tokens of the first example.
    """
    calls: dict[str, list[Tensor | None]] = defaultdict(list)
    # Added to the outputs: zeros that collect gradients.
    zeros = {name: torch.zeros((), device=model.device, requires_grad=True) for name in projections}

    def record(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> Any:
            if not inputs or getattr(output, "shape", None) != (*inputs[0].shape[:-1], find_sizes(module)[1]):
                calls[name].append(None)
                return output
            calls[name].append(inputs[0].detach().clone())
            return output + zeros[name]

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in projections.items()]
    tokens = sample_tokens(model, BATCH, LENGTH)
    tokens[0] += shift
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = tokens
    try:
        with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(0)  # for dropout, if the model is in training mode
            logits = text_logits(model, **inputs)
    finally:
        for handle in handles:
            handle.remove()
    if torch.is_inference_mode_enabled():  # nothing is to be trained, and there are no gradients
        return calls, set(projections)
    if not (logits.requires_grad and zeros):
        return calls, set()
    gradients = torch.autograd.grad(logits.sum(), list(zeros.values()), allow_unused=True)
    return calls, {name for name, own in zip(zeros, gradients, strict=True) if own is not None}


def sample_tokens(model: PreTrainedModel, batch: int, length: int) -> Tensor:
    """Return the same tokens at each call, long [batch, length], on the model's device."""
    size = model.get_input_embeddings().num_embeddings
    generator = torch.Generator().manual_seed(0)
    return torch.randint(size // 8, size // 2, (batch, length), generator=generator).to(model.device)


def _keep_apart(inputs: list[Tensor | None], others: list[Tensor | None]) -> bool:
    """Whether there are calls, whose inputs are example after example, and only the first example changed."""
    return bool(inputs) and len(inputs) == len(others) and all(map(_keeps_apart, inputs, others))


def _keeps_apart(x: Tensor | None, other: Tensor | None) -> bool:
    if x is None or other is None or x.shape != other.shape or x.shape[0] % BATCH:
        return False
    if x.ndim < 3 and len(x) != BATCH * LENGTH:
        return False
    changes = (x - other).float().reshape(BATCH, -1).norm(dim=1)
    return bool((changes[1:] <= MAX_LEAK * changes[0]).all())
