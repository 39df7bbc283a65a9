"""Greedy generation by an adapted model, of a batch whose examples each have features of their own."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache, PreTrainedModel, StoppingCriteria
from transformers.modeling_outputs import BaseModelOutput

from flix_lightning.adapter.projection import Adapter
from flix_lightning.models.base import Base

#: Share of a batch's texts whose end stops its generation, which goes on with the others alone.
ENOUGH = 0.25


@dataclass(frozen=True)
class Generator:
    """Makes texts of batches.

    Attributes:
        base: the base model, into which `adapter` is injected.
        adapter: from `inject`.
        max_new_tokens: longest generated text.
    """

    base: Base
    adapter: Adapter
    max_new_tokens: int

    def __call__(self, batch: Mapping[str, Tensor], features: Sequence[Collection[str]]) -> list[str]:
        """Give a text for each example.

        Args:
            batch: input_ids and attention_mask, long [batch, length], on the model's device.
            features: the "kind:name" of each example that are on; unknown ones contribute nothing.
        """
        texts = self._generate(batch["input_ids"], batch["attention_mask"], features)
        return self.base.tokenizer.batch_decode(texts, skip_special_tokens=True)

    def starts(self, like: Tensor) -> Tensor:
        """What the decoder reads before each of a batch's targets: long [batch, 1 or 2]."""
        return like.new_tensor(self.base.decoder_start).repeat(len(like), 1)

    def _generate(self, given: Tensor, mask: Tensor, features: Sequence[Collection[str]]) -> list[Tensor]:
        """The tokens after each prompt, some with padding.

        Texts that have ended leave the batch, whose longest may be many times as long as most.
        """
        model, rows = self.base.model, self.adapter.space.rows(features)
        inputs: dict[str, Any] = {"attention_mask": mask}
        read = "input_ids"
        if self.base.is_encoder_decoder:
            with self.adapter.route(rows):
                inputs["encoder_outputs"] = model.get_encoder()(given, attention_mask=mask)
            given, read = self.starts(given), "decoder_input_ids"
        start, end = given.shape[1], given.shape[1] + self.max_new_tokens
        eos = model.generation_config.eos_token_id
        stopping = [_Enough(start, eos)] if _may_leave(model) else []
        texts: dict[int, Tensor] = {}
        left = torch.arange(len(given), device=given.device)
        while True:
            with self.adapter.route(rows):
                made = model.generate(
                    **{read: given},
                    **inputs,
                    max_new_tokens=end - given.shape[1],
                    stopping_criteria=stopping,
                    return_dict_in_generate=True,
                )
            given = made.sequences
            ended = _ended(given[:, start:], eos) | (given.shape[1] == end)
            texts.update(zip(left[ended].tolist(), given[ended, start:], strict=True))
            if ended.all():
                return [texts[i] for i in sorted(texts)]
            going_on = (~ended).nonzero().squeeze(1)
            left, given = left[going_on], given[going_on]
            rows = self.adapter.space.rows([features[i] for i in left.tolist()])
            inputs = _go_on(inputs, made.past_key_values, given, going_on)


class _Enough(StoppingCriteria):
    """Stops a whole batch once enough of its texts have ended."""

    def __init__(self, start: int, eos: int):
        self._start, self._eos = start, eos

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        ended = _ended(input_ids[:, self._start :], self._eos)
        return (ended.float().mean() >= ENOUGH).expand_as(ended)


def _ended(generated: Tensor, eos: int) -> Tensor:
    """Which texts have ended: bool [batch]."""
    return (generated == eos).any(dim=1)


def _may_leave(model: PreTrainedModel) -> bool:
    """Whether examples may leave a batch: what the model keeps of them must be in a cache that lets them."""
    # Processes that each hold a part of the base must stay together until all are done.
    spread = getattr(model, "_is_fsdp_managed_module", False)
    return model._supports_default_dynamic_cache() and not model._is_stateful and not spread


def _go_on(inputs: dict[str, Any], cache: Cache, given: Tensor, going_on: Tensor) -> dict[str, Any]:
    """What `generate` goes on from with the examples `going_on` alone, of which it has `given`."""
    # Not `batch_select_indices`, which leaves the states of convolutions as they are.
    cache.reorder_cache(going_on)
    mask = inputs["attention_mask"][going_on]
    if encoded := inputs.get("encoder_outputs"):
        return {
            "past_key_values": cache,
            "encoder_outputs": BaseModelOutput(encoded.last_hidden_state[going_on]),
            "attention_mask": mask,
            "decoder_attention_mask": torch.ones_like(given),
        }
    mask = functional.pad(mask, (0, given.shape[1] - mask.shape[1]), value=1)
    return {"past_key_values": cache, "attention_mask": mask}
