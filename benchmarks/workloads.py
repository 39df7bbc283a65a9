"""The models that are measured, with batches of random tokens: the cost does not depend on the text."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import (
    AutoModelForSeq2SeqLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from flix_lightning.models.base import BUILT_IN


@dataclass(frozen=True)
class Workload:
    """A model and the sizes of its batch.

    Attributes:
        title: its name in a report.
        build: makes the model.
        batch: examples.
        length: tokens of an example; a decoder is trained on all of them.
        target: tokens of an encoder-decoder's target.
    """

    title: str
    build: Callable[[], PreTrainedModel]
    batch: int
    length: int
    target: int = 0

    def inputs(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """Make a batch of random tokens."""
        generator = torch.Generator().manual_seed(0)

        def ids(length: int) -> Tensor:
            shape = (self.batch, length)
            return torch.randint(2, model.config.vocab_size, shape, generator=generator).to(model.device)

        if model.config.is_encoder_decoder:
            return {"input_ids": ids(self.length), "labels": ids(self.target)}
        tokens = ids(self.length)
        return {"input_ids": tokens, "labels": tokens}


def _t5() -> PreTrainedModel:
    return AutoModelForSeq2SeqLM.from_pretrained(BUILT_IN["cldr-base"], dtype=torch.float32).eval()


def _llama() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096, hidden_size=512, intermediate_size=1024, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=4, pad_token_id=0, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def _gemma(vocabulary: int, dtype: torch.dtype) -> PreTrainedModel:
    """Gemma 3 270M with a smaller vocabulary."""
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=vocabulary, hidden_size=640, intermediate_size=2048, num_hidden_layers=18,
        num_attention_heads=4, num_key_value_heads=1, head_dim=256,
    )  # fmt: skip
    return Gemma3ForCausalLM(config).to(dtype).eval()


WORKLOADS = (
    Workload("the built-in T5 (5.9M)", _t5, batch=32, length=48, target=16),
    Workload("a Llama of d = 512, 4 layers (13M)", _llama, batch=8, length=64),
)
# The logits of Gemma's own vocabulary would fill the memory.
ON_GPU = Workload("a Gemma 3 of 270M's shape", partial(_gemma, 16384, torch.bfloat16), batch=64, length=256)
#: With the tokens that the lite data uses, by the type of the weights.
CUT_GEMMA = {
    dtype: Workload(
        "a Gemma 3 270M of 152,000 tokens", partial(_gemma, 152_000, getattr(torch, dtype)), 16, 96
    )
    for dtype in ("float32", "bfloat16")
}
TARGETS = {"default": "q and v", "all-linear": "all linear"}
