"""Greedy generation by an adapted model, for a batch in which every example has its own features."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache, LogitsProcessor, PreTrainedModel, StoppingCriteria
from transformers.modeling_outputs import BaseModelOutput

from flix_lightning.adapter.layout import sample_tokens
from flix_lightning.adapter.overflow import watch_overflow
from flix_lightning.adapter.projection import Adapter
from flix_lightning.common.errors import UserError, one_line
from flix_lightning.models.base import Base, decode
from flix_lightning.models.checks import differ

#: Once this share of a batch has ended, generation stops and goes on with the rest alone.
ENDED_SHARE = 0.25

#: Tokens of a prompt, and of each half of a text, by which a way to generate is tried.
TRIED_LENGTH = 4


class Grouping(Enum):
    """Which examples may be in one batch: some models read padding, or even the other examples."""

    ANY = "any"
    SAME_LENGTH = "those of one length"
    ONE = "one alone"


@dataclass(frozen=True)
class Way:
    """A way to generate: with a cache or not, ended texts leave their batch or not, what makes a batch.

    Texts leave to save time: the longest text of a batch may be many times as long as most.
    """

    use_cache: bool
    leave: bool
    grouping: Grouping


#: The fastest first.
WAYS = (
    *(Way(True, leave, grouping) for grouping in Grouping for leave in (True, False)),
    *(Way(False, False, grouping) for grouping in Grouping),
)


class Generator:
    """Generates texts for batches, in the fastest way in which the first tokens have the logits of training.

    Its arguments are a base, the adapter that is injected into it, and the tokens of the longest text. Raises
    UserError if there is no such way.
    """

    def __init__(self, base: Base, adapter: Adapter, max_new_tokens: int):
        self.base, self.adapter, self.max_new_tokens = base, adapter, max_new_tokens
        way = next((way for way in WAYS if self._is_right(way)), None)
        if way is None:
            raise UserError(f"{type(base.model).__name__} generates other texts than those it is trained on")
        self.way = way

    def __call__(self, batch: Mapping[str, Tensor], features: Sequence[Collection[str]]) -> list[str]:
        """Return a text for each example.

        Args:
            batch: input_ids and attention_mask, long [batch, length], on the model's device.
            features: the active "kind:name" of each example; unknown ones contribute nothing.

        Raises:
            UserError: numbers in the model are not finite, or a sharded model can only take one text a batch.
        """
        ids, mask = batch["input_ids"], batch["attention_mask"]
        lengths = mask.sum(dim=1).tolist() if self.way.grouping != Grouping.ANY else [ids.shape[1]] * len(ids)
        groups = defaultdict(list)
        for row, length in enumerate(lengths):
            groups[length, row if self.way.grouping == Grouping.ONE else None].append(row)
        if len(groups) > 1 and _is_sharded(self.base.model):
            name = type(self.base.model).__name__
            raise UserError(
                f"padding changes the texts of {name}: trainer=fsdp needs evaluation.batch_size=1"
            )
        texts = [""] * len(ids)
        for (length, _), rows in groups.items():
            part = self._part(length)
            with watch_overflow(self.base.model) as overflowed:
                tokens = self._generate(ids[rows, part], mask[rows, part], [features[row] for row in rows])
                if overflowed():
                    raise _not_finite(self.base.model)
            for row, text in zip(rows, decode(self.base.tokenizer, tokens), strict=True):
                texts[row] = text
        return texts

    def _part(self, length: int) -> slice:
        """Return where an input of `length` tokens stands in a padded row."""
        return slice(length) if self.base.is_encoder_decoder else slice(-length, None)

    def _generate(self, ids: Tensor, mask: Tensor, features: Sequence[Collection[str]]) -> list[Tensor]:
        """Return the tokens after each prompt, perhaps with padding."""
        model, rows = self.base.model, self.adapter.space.rows(features)
        with self.adapter.route(rows):
            name, ids, inputs = self._encode(ids, mask)
        start, end = ids.shape[1], ids.shape[1] + self.max_new_tokens
        eos = model.generation_config.eos_token_id
        # Processes that each hold a shard of the base must stay together until all are done.
        leave = self.way.leave and not _is_sharded(model)
        stopping, finite = [_EnoughEnded(start, eos)] if leave else [], _Finite()
        options = {
            "stopping_criteria": stopping,
            "logits_processor": [finite],
            "use_cache": self.way.use_cache,
        }
        texts: dict[int, Tensor] = {}
        examples = torch.arange(len(ids), device=ids.device)
        while True:
            options["max_new_tokens"] = end - ids.shape[1]
            with self.adapter.route(rows):
                output = model.generate(**{name: ids}, **inputs, **options, return_dict_in_generate=True)
            ids = output.sequences
            ended = _ended(ids[:, start:], eos) | (ids.shape[1] == end)
            texts.update(zip(examples[ended].tolist(), ids[ended, start:], strict=True))
            if ended.all():
                finite.check(model)
                return [texts[i] for i in sorted(texts)]
            rest = (~ended).nonzero().squeeze(1)
            examples, ids = examples[rest], ids[rest]
            rows = self.adapter.space.rows([features[i] for i in examples.tolist()])
            inputs = _select(inputs, output.past_key_values, ids, rest)

    def _encode(self, ids: Tensor, mask: Tensor) -> tuple[str, Tensor, dict[str, Any]]:
        """Return `generate`'s name for the tokens before a text, these tokens, and its other inputs."""
        if not self.base.is_encoder_decoder:
            return "input_ids", ids, {"attention_mask": mask}
        encoded = self.base.model.get_encoder()(ids, attention_mask=mask)
        return (
            "decoder_input_ids",
            self.base.starts(ids),
            {"attention_mask": mask, "encoder_outputs": encoded},
        )

    @torch.no_grad()
    def _is_right(self, way: Way) -> bool:
        """Whether a text that is generated so beside another text has the logits of a plain forward."""
        model, n = self.base.model, TRIED_LENGTH
        length = 3 * n if way.grouping == Grouping.ANY else n
        prompts = sample_tokens(model, 1 if way.grouping == Grouping.ONE else 2, length)
        mask, own = torch.zeros_like(prompts), self._part(n)
        mask[0, own] = mask[1:] = 1
        parts = (n, n) if way.leave else (2 * n,)
        options = {"output_logits": True, "use_cache": way.use_cache}
        first, logits = torch.zeros(1, dtype=torch.long, device=prompts.device), []
        with self.adapter.route(self.adapter.space.rows([()])):
            try:
                name, ids, inputs = self._encode(prompts, mask)
                for tokens in parts:
                    options |= {"min_new_tokens": tokens, "max_new_tokens": tokens}
                    output = model.generate(**{name: ids}, **inputs, **options, return_dict_in_generate=True)
                    logits += [step[0] for step in output.logits]
                    ids = output.sequences[:1]
                    inputs = _select(inputs, output.past_key_values, ids, first) if way.leave else {}
            except Exception as error:  # whatever a model raises for a way that is not its own
                if way != WAYS[-1]:
                    return False
                reason = one_line(error, 200)
                raise UserError(f"{type(model).__name__} does not generate texts ({reason})") from error
            text = {"decoder_input_ids": ids[:, :-1]}
            if not self.base.is_encoder_decoder:
                text = {"input_ids": torch.cat([prompts[:1, own], ids[:, length:-1]], dim=1)}
            else:
                text["input_ids"] = prompts[:1, own]
            expected = model(**text, use_cache=False).logits[0, -len(logits) :]
        # Generation itself reports NaN, with a clearer error.
        return bool(expected.isnan().any()) or not differ(expected, torch.stack(logits))


class _Finite(LogitsProcessor):
    """Keeps on the device whether all logits so far were finite, so that nothing waits for the GPU."""

    def __init__(self):
        self._all_finite: Tensor | bool = True

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        # Some models set the logits of tokens that they never say to -inf: only the largest counts.
        self._all_finite = scores.amax(dim=-1).isfinite().all() & self._all_finite
        return scores

    def check(self, model: PreTrainedModel) -> None:
        """Raise UserError unless all were finite."""
        if not self._all_finite:
            raise _not_finite(model)


class _EnoughEnded(StoppingCriteria):
    """Stops the whole batch once ENDED_SHARE of its texts have ended."""

    def __init__(self, start: int, eos: int):
        self._start, self._eos = start, eos

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        ended = _ended(input_ids[:, self._start :], self._eos)
        return (ended.float().mean() >= ENDED_SHARE).expand_as(ended)


def _not_finite(model: PreTrainedModel) -> UserError:
    return UserError(
        f"the numbers in {type(model).__name__} are not finite: they are too large for this precision (take "
        "bf16-mixed or 32-true, and model.dtype=bfloat16 or float32), or its weights are broken"
    )


def _ended(generated: Tensor, eos: int) -> Tensor:
    return (generated == eos).any(dim=1)


def _is_sharded(model: PreTrainedModel) -> bool:
    return getattr(model, "_is_fsdp_managed_module", False)


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
