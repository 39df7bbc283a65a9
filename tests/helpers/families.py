"""A folder with a random model of each family, as its own checkpoints come: tokens, start, generation."""

from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BloomConfig,
    ByT5Tokenizer,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MBartConfig,
    MT5Config,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
    T5Config,
    UMT5Config,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
)

VOCABULARY = 264  # 256 bytes and up to 8 special tokens
T5 = {
    "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.1,
    "feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
BART = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64,
    "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LLAMA = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
GEMMA3 = {
    **LLAMA, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"],
    "query_pre_attn_scalar": 8, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip
LLAMA_PROJECTIONS = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"
NEOX_PROJECTIONS = "query_key_value dense dense_h_to_4h dense_4h_to_h"


@dataclass(frozen=True)
class Family:
    """What a family's checkpoints hold.

    special: special tokens, from id 0; a name is the role of that token (pad, bos, eos), or none.
    around: what the tokenizer puts before and after a text.
    generation: what `generation_config.json` says.
    start: what an encoder-decoder's decoder reads before a target.
    projections: last parts of the names of all projections but the output's.
    """

    config: type[PreTrainedConfig]
    options: dict[str, Any]
    projections: str
    special: tuple[str, ...] = ("pad", "eos")
    around: str = "$A"
    generation: dict[str, Any] = field(default_factory=dict)
    start: tuple[int, ...] = ()

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Make a tokenizer of single bytes, after the special tokens."""
        names = [f"<{name}>" for name in self.special]
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: id for id, token in enumerate([*names, *letters])}
        backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        backend.post_processor = processors.TemplateProcessing(
            single=self.around, special_tokens=[(name, vocabulary[name]) for name in names]
        )
        roles = {f"{name}_token": f"<{name}>" for name in self.special if name in ("pad", "bos", "eos")}
        return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)

    def save(self, folder):
        """Write config, random weights, generation config and tokenizer."""
        torch.manual_seed(0)
        config = self.config(**{"vocab_size": VOCABULARY, **self.options})
        mapping = (
            MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
            if config.is_encoder_decoder
            else MODEL_FOR_CAUSAL_LM_MAPPING
        )
        model = mapping[type(config)](config)
        for parameter in model.parameters():
            if parameter.ndim > 1:  # larger than usual, so that different inputs have different outputs
                torch.nn.init.normal_(parameter, std=0.3)
        if "T5" in type(config).__name__:  # scales its logits by 1/√d_model
            torch.nn.init.normal_(model.get_input_embeddings().weight, std=3.0)
        model.generation_config.update(**self.generation)
        model.save_pretrained(folder)
        self.tokenizer().save_pretrained(folder)
        return folder


class Bytes(Family):
    """A family with the tokenizer of ByT5."""

    def tokenizer(self):
        return ByT5Tokenizer()


class LatePad(Family):
    """A family whose tokenizer was given a pad that the model has no embedding of."""

    def tokenizer(self):
        tokenizer = super().tokenizer()
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
        assert tokenizer.pad_token_id == self.options["vocab_size"]
        return tokenizer


FAMILIES = {
    "t5": Family(T5Config, T5, "q k v o wi_0 wi_1 wo", around="$A <eos>", start=(0,)),
    # Its tokenizer has no pad.
    "mt5": Family(
        MT5Config,
        T5,
        "q k v o wi_0 wi_1 wo",
        ("unused", "eos"),
        "$A <eos>",
        start=(0,),
    ),
    "umt5": Family(UMT5Config, T5, "q k v o wi_0 wi_1 wo", around="$A <eos>", start=(0,)),
    "byt5": Bytes(T5Config, {**T5, "vocab_size": 384}, "q k v o wi_0 wi_1 wo", start=(0,)),
    # As bart-large's: it begins targets with <bos>, and forces and forbids tokens.
    "bart": Family(
        BartConfig,
        {**BART, "decoder_start_token_id": 2},
        "q_proj k_proj v_proj out_proj fc1 fc2",
        ("bos", "pad", "eos"),
        "<bos> $A <eos>",
        {
            "num_beams": 4,
            "early_stopping": True,
            "no_repeat_ngram_size": 3,
            "forced_bos_token_id": 0,
            "forced_eos_token_id": 2,
        },
        start=(2, 0),
    ),
    # Its decoder starts with a language's token, which stands behind each text.
    "mbart": Family(
        MBartConfig,
        {**BART, "decoder_start_token_id": 4},
        "q_proj k_proj v_proj out_proj fc1 fc2",
        ("bos", "pad", "eos", "unk", "en", "ro"),
        "$A <eos> <en>",
        {"num_beams": 5, "max_length": 200},
        start=(4,),
    ),
    "gpt2": Family(
        GPT2Config,
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0},
        "c_attn c_proj c_fc",
        ("eos",),
    ),
    "llama": LatePad(
        LlamaConfig,
        {**LLAMA, "vocab_size": 258, "bos_token_id": 0, "eos_token_id": 1},
        LLAMA_PROJECTIONS,
        ("bos", "eos"),
        "<bos> $A",
    ),
    # As the chat model's: it ends texts in one token, may end in another, and samples.
    "qwen3": Family(
        Qwen3Config,
        {**LLAMA, "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": True},
        LLAMA_PROJECTIONS,
        ("pad", "eos", "end"),
        generation={
            "do_sample": True,
            "temperature": 0.6,
            "top_k": 20,
            "top_p": 0.95,
            "eos_token_id": [1, 2],
            "pad_token_id": 0,
        },
    ),
    "gemma3": Family(
        Gemma3TextConfig,
        GEMMA3,
        LLAMA_PROJECTIONS,
        ("pad", "eos", "bos", "end_of_turn"),
        "<bos> $A",
        {
            "do_sample": True,
            "top_k": 64,
            "top_p": 0.95,
            "eos_token_id": [1, 3],
            "cache_implementation": "hybrid",
        },
    ),
    # Of pictures and text: only the text's projections are adapted.
    "gemma3 with vision": Family(
        Gemma3Config,
        {
            "text_config": {**GEMMA3, "vocab_size": VOCABULARY},
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 16,
                "patch_size": 8,
            },
            "mm_tokens_per_image": 4,
            "image_token_index": 7,
            "boi_token_index": 6,
            "eoi_token_index": 5,
        },
        LLAMA_PROJECTIONS,
        ("pad", "eos", "bos", "end_of_turn"),
        "<bos> $A",
    ),
    "bloom": Family(
        BloomConfig,
        {
            "hidden_size": 32,
            "n_layer": 2,
            "n_head": 4,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 3,
        },
        NEOX_PROJECTIONS,
        ("unk", "bos", "eos", "pad"),
    ),
    "gpt_neox": Family(
        GPTNeoXConfig,
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "max_position_embeddings": 64,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
        NEOX_PROJECTIONS,
        ("eos",),
    ),
}
