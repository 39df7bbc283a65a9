"""Greedy generation by an adapted model, for a batch in which every example has its own features."""

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

#: Once this share of a batch has ended, generation stops and goes on with the rest alone.
ENDED_SHARE = 0.25


@dataclass(frozen=True)
class Generator:
    """Generates texts for batches.

    Attributes:
        base: the base model, into which `adapter` is injected.
        adapter: from `inject`.
        max_new_tokens: tokens of the longest text.
    """

    base: Base
    adapter: Adapter
    max_new_tokens: int

    def __call__(self, batch: Mapping[str, Tensor], features: Sequence[Collection[str]]) -> list[str]:
        """Return a text for each example.

        Args:
            batch: input_ids and attention_mask, long [batch, length], on the model's device.
            features: the active "kind:name" of each example; unknown ones contribute nothing.
        """
        texts = self._generate(batch["input_ids"], batch["attention_mask"], features)
        return self.base.tokenizer.batch_decode(texts, skip_special_tokens=True)

    def starts(self, like: Tensor) -> Tensor:
        """Return what the decoder reads before each target: long [len(like), 1 or 2]."""
        return like.new_tensor(self.base.decoder_start).repeat(len(like), 1)

    def _generate(self, ids: Tensor, mask: Tensor, features: Sequence[Collection[str]]) -> list[Tensor]:
        """Return the tokens after each prompt, perhaps with padding.

        Ended texts leave the batch, because its longest text may be many times as long as most.
        """
        model, rows = self.base.model, self.adapter.space.rows(features)
        inputs: dict[str, Any] = {"attention_mask": mask}
        ids_name = "input_ids"
        if self.base.is_encoder_decoder:
            with self.adapter.route(rows):
                inputs["encoder_outputs"] = model.get_encoder()(ids, attention_mask=mask)
            ids, ids_name = self.starts(ids), "decoder_input_ids"
        start, end = ids.shape[1], ids.shape[1] + self.max_new_tokens
        eos = model.generation_config.eos_token_id
        stopping = [_EnoughEnded(start, eos)] if _can_shrink(model) else []
        texts: dict[int, Tensor] = {}
        examples = torch.arange(len(ids), device=ids.device)
        while True:
            with self.adapter.route(rows):
                output = model.generate(
                    **{ids_name: ids},
                    **inputs,
                    max_new_tokens=end - ids.shape[1],
                    stopping_criteria=stopping,
                    return_dict_in_generate=True,
                )
            ids = output.sequences
            ended = _ended(ids[:, start:], eos) | (ids.shape[1] == end)
            texts.update(zip(examples[ended].tolist(), ids[ended, start:], strict=True))
            if ended.all():
                return [texts[i] for i in sorted(texts)]
            rest = (~ended).nonzero().squeeze(1)
            examples, ids = examples[rest], ids[rest]
            rows = self.adapter.space.rows([features[i] for i in examples.tolist()])
            inputs = _select(inputs, output.past_key_values, ids, rest)


class _EnoughEnded(StoppingCriteria):
    """Stops the whole batch once ENDED_SHARE of its texts have ended."""

    def __init__(self, start: int, eos: int):
        self._start, self._eos = start, eos

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        ended = _ended(input_ids[:, self._start :], self._eos)
        return (ended.float().mean() >= ENDED_SHARE).expand_as(ended)


def _ended(generated: Tensor, eos: int) -> Tensor:
    return (generated == eos).any(dim=1)


def _can_shrink(model: PreTrainedModel) -> bool:
    """Whether examples can leave a batch: only if all that the model keeps of them is in a cache."""
    # Processes that each hold a shard of the base must stay together until all are done.
    sharded = getattr(model, "_is_fsdp_managed_module", False)
    return model._supports_default_dynamic_cache() and not model._is_stateful and not sharded


def _select(inputs: dict[str, Any], cache: Cache, ids: Tensor, rest: Tensor) -> dict[str, Any]:
    """Return what `generate` needs to go on with the examples `rest`, whose tokens are `ids`."""
    cache.reorder_cache(rest)  # `batch_select_indices` would leave the states of convolutions as they are
    mask = inputs["attention_mask"][rest]
    if encoded := inputs.get("encoder_outputs"):
        return {
            "past_key_values": cache,
            "encoder_outputs": BaseModelOutput(encoded.last_hidden_state[rest]),
            "attention_mask": mask,
            "decoder_attention_mask": torch.ones_like(ids),
        }
    mask = functional.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)
    return {"past_key_values": cache, "attention_mask": mask}
