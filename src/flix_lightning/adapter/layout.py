"""Which projections keep the examples of a batch apart: found by running the base on a few tokens.

An update is added example by example, so a projection's input must be [batch, ..., d] or a view of it. Some
models put the sequence first (LED), sort loose tokens (experts), or do not run a projection on text at all.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from flix_lightning.common.errors import UserError

BATCH, LENGTH = 3, 7  # that none can be taken for the other, or for a multiple of it

#: Largest change of another example's input, as a share of the change of the example's own.
MAX_LEAK = 0.1


def find_mixing(model: PreTrainedModel, projections: Mapping[str, nn.Module]) -> list[str]:
    """Return the names of the projections that do not keep examples apart, in order.

    The base runs twice, with other tokens in the first example: only that example's inputs may change.
    Of experts, which get loose tokens, one may get all tokens by chance, so they are judged together.

    Raises:
        UserError: the model does not run on tokens alone.
    """
    first, second = (_record_inputs(model, projections, seed) for seed in (0, 1))
    apart = {name: _keep_apart(first[name], second[name]) for name in projections}
    groups = defaultdict(list)
    for name in projections:
        groups[_pattern(name)].append(apart[name])
    loose = {name for name, inputs in first.items() if any(x is None or x.ndim < 3 for x in inputs)}
    return [
        name for name in projections if not (all(groups[_pattern(name)]) if name in loose else apart[name])
    ]


def group_names(names: Iterable[str]) -> str:
    """List dotted names, those that differ in numbers only once: "layers.*.q_proj (12), lm_head (1)"."""
    return ", ".join(f"{name} ({count})" for name, count in Counter(map(_pattern, names)).items())


def _pattern(name: str) -> str:
    return re.sub(r"\d+(?=\.)", "*", name)


@torch.no_grad()
def _record_inputs(
    model: PreTrainedModel, projections: Mapping[str, nn.Module], seed: int
) -> Mapping[str, list[Tensor | None]]:
    """Return for each projection the input of each of its calls, or None if the output does not fit it."""
    calls = defaultdict(list)

    def record(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            fits = isinstance(output, Tensor) and output.shape[:-1] == inputs[0].shape[:-1]
            calls[name].append(inputs[0].clone() if fits else None)

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in projections.items()]
    inputs = {"input_ids": _tokens(model, seed)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = _tokens(model, seed)
    try:
        with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(0)  # for dropout, if the model is in training mode
            model(**inputs, use_cache=False)
    except Exception as error:  # whatever a model's code raises
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{type(model).__name__} does not run on text alone ({reason})") from error
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _tokens(model: PreTrainedModel, seed: int) -> Tensor:
    size = model.get_input_embeddings().num_embeddings
    tokens = torch.randint(size // 8, size // 2, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
    tokens[0] = (tokens[0] + seed) % size
    return tokens.to(model.device)


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
