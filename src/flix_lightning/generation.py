"""Greedy generation by an adapted model, of a batch whose examples each have features of their own."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from flix_lightning.adapter import Adapter
from flix_lightning.models import Base


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
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        given = inputs["input_ids"]
        if self.base.is_encoder_decoder:
            given = inputs["decoder_input_ids"] = self.starts(given)
        with self.adapter.route(self.adapter.space.rows(features)):
            generated = self.base.model.generate(**inputs, max_new_tokens=self.max_new_tokens)
        return self.base.tokenizer.batch_decode(generated[:, given.shape[1] :], skip_special_tokens=True)

    def starts(self, like: Tensor) -> Tensor:
        """What the decoder reads before each of a batch's targets: long [batch, 1 or 2]."""
        return like.new_tensor(self.base.decoder_start).repeat(len(like), 1)
