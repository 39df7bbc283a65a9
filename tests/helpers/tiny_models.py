"""Random models of a few thousand parameters, one for each kind of architecture, and inputs for them."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from flix_lightning.adapter.features import FeatureSpace
from flix_lightning.adapter.projection import inject

RANKS = {"task:ner": 3, "task:qa": 1, "language:sw": 2, "language:am": 2, "script:latin": 0}
FEATURES = [
    ("task:ner", "language:sw"),
    ("language:am",),
    (),
    ("task:qa", "task:qa", "language:xx", "language:sw"),
]
ARCHITECTURES = ["t5", "gpt2", "llama"]


def build(name, dtype=torch.float64):
    """Build a model with dropout 0, in eval mode; the same weights at each call."""
    torch.manual_seed(0)
    if name == "t5":
        config = T5Config(
            vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4, dropout_rate=0.0,
            feed_forward_proj="gated-gelu", decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
        )  # fmt: skip
        model = T5ForConditionalGeneration(config)
    elif name == "gpt2":
        config = GPT2Config(
            vocab_size=40, n_embd=16, n_layer=2, n_head=4, n_positions=32, pad_token_id=0, eos_token_id=1,
            bos_token_id=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )  # fmt: skip
        model = GPT2LMHeadModel(config)
    else:
        config = LlamaConfig(
            vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, pad_token_id=0, eos_token_id=1, bos_token_id=2, tie_word_embeddings=False,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
    # Larger than usual, so that attention is far from uniform and a wrong update shows.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.to(dtype).eval()


def adapt(model, ranks=RANKS, targets="all-linear"):
    """Inject an adapter whose B is not zero any more."""
    adapter = inject(model, FeatureSpace(ranks), targets)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter[:-1] = torch.empty(parameter[:-1].shape).normal_(std=0.3, generator=generator)
    return adapter


def batch(model, size=4, seed=2):
    """Draw labels and inputs of different lengths, padded right (encoder-decoder) or left (decoder)."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [6 - i % 3 for i in range(size)]
    input_ids = torch.randint(3, 40, (size, 6), generator=generator)
    positions = torch.arange(6)
    if not model.config.is_encoder_decoder:
        positions = positions.flip(0)
    mask = (positions < torch.tensor(lengths)[:, None]).long()
    input_ids = input_ids * mask
    labels = torch.randint(3, 40, (size, 5), generator=generator)
    if not model.config.is_encoder_decoder:
        labels = input_ids
    return {"input_ids": input_ids, "attention_mask": mask, "labels": labels.masked_fill(labels == 0, -100)}


def byte_tokenizer():
    """Make a fast tokenizer of single bytes, as GPT-2's: no padding, and nothing added to inputs."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
