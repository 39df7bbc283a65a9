"""A tiny random model of any family of Transformers, with a tokenizer of bytes."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers import models as tokenizer_models
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

LARGEST = 20_000_000  # parameters: some families have tables that no setting makes smaller

SPECIAL = ("<pad>", "<eos>", "<bos>")
IDS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "decoder_start_token_id": 2}

#: What the settings of configs are in a tiny form.
SIZES: dict[str, Any] = IDS | {
    setting: size
    for size, settings in {
        1: "n_shared_experts n_group topk_group mamba_n_groups spatial_merge_size",
        2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_encoder_layers "
        "num_decoder_layers depth num_key_value_heads num_kv_heads num_experts_per_tok num_experts_per_token "
        "moe_topk moe_k mamba_expand n_mamba_heads o_groups",
        4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads "
        "num_encoder_attention_heads num_decoder_attention_heads mamba_n_heads state_size mamba_d_state "
        "conv_kernel num_experts num_local_experts n_routed_experts moe_num_experts linear_num_heads "
        "linear_num_key_heads linear_num_value_heads index_n_heads",
        8: "head_dim d_kv d_head dim_head qk_nope_head_dim qk_rope_head_dim v_head_dim patch_size "
        "num_mel_bins linear_head_dim linear_key_head_dim linear_value_head_dim laurel_rank sliding_window "
        "hidden_size_per_layer_input index_head_dim",
        16: "q_lora_rank kv_lora_rank o_lora_rank image_size mamba_d_head hc_lowrank",
        24: "moe_intermediate_size shared_expert_intermediate_size",
        32: "hidden_size d_model n_embd dim embedding_size emb_dim word_embed_proj_dim out_hidden_size "
        "vision_output_dim",
        48: "intermediate_size ffn_dim d_ff d_inner encoder_ffn_dim decoder_ffn_dim n_inner ffn_hidden_size "
        "dim_ff",
        64: "max_position_embeddings n_positions n_ctx max_source_positions",
        264: "vocab_size src_vocab_size tgt_vocab_size vocab_size_per_layer_input",
    }.items()
    for setting in settings.split()
}


def layers(*types: str) -> dict[str, Any]:
    """Return the settings of a model with layers of different types."""
    return {"layer_types": list(types), "num_hidden_layers": len(types)}


LINEAR, SLIDING = layers("linear_attention", "full_attention"), layers("sliding_attention", "full_attention")
BERT = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4} | {
    "intermediate_size": 48, "vocab_size": 264, "max_position_embeddings": 64,
}  # fmt: skip
#: What some families need beside SIZES, or in their place.
OVERRIDES: dict[str, dict[str, Any]] = {
    family: options
    for families, options in {
        # Decoders only if they are told so.
        "bert bert-generation big_bird camembert data2vec-text electra ernie megatron-bert rembert roberta "
        "roberta-prelayernorm roformer xlm-roberta xlm-roberta-xl": {"is_decoder": True},
        "axk1 axk2 deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa longcat_flash minicpm3 "
        "youtu dots3_note_text": {"num_key_value_heads": 4},
        "qwen3_next qwen3_5_text qwen3_5_moe_text": LINEAR,
        "bailing_hybrid kimi_linear": {**LINEAR, "num_key_value_heads": 4},
        "lfm2 lfm2_moe lfm3": layers("conv", "full_attention"),
        "codegen gptj": {"rotary_dim": 4},
        "gemma3n_text gemma4_text": {**SLIDING, "num_kv_shared_layers": 0},
    }.items()
    for family in families.split()
} | {
    "bamba": {"attn_layer_indices": [1]},
    "deepseek_v4": {**layers("sliding_attention", "compressed_sparse_attention"), "num_key_value_heads": 1},
    "encoder-decoder": {
        "encoder": BERT,
        "decoder": {**BERT, "is_decoder": True, "add_cross_attention": True},
    },
    "falcon_h1": {"mamba_d_ssm": 64},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": layers("mamba", "attention"),
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    "led": {"attention_window": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "minimax": {**LINEAR, "block_size": 8},
    "nllb-moe": {"encoder_sparse_step": 2, "decoder_sparse_step": 2},
    "qwen4_exp_text": {**LINEAR, "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8}
    | {"indexer_budget": 4, "indexer_compress_ratio": 2},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "lru_width": 32, "num_key_value_heads": 1},
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "lsh"]}
    | {"num_buckets": 2},
    "roc_bert": {"is_decoder": True, "enable_pronunciation": False, "enable_shape": False},
    "switch_transformers": {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}
    | {"expert_capacity": 64},
    "xmod": {"is_decoder": True, "default_language": "en_XX"},
    "zamba": layers("mamba", "hybrid", "mamba", "hybrid"),
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "hybrid"] * 2,
        "num_key_value_heads": 4,
    },
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_config(config_class: type[PreTrainedConfig]) -> PreTrainedConfig:
    """Make a config of a class with SIZES, and so for the parts of a model of several modalities."""
    defaults = config_class().to_dict()
    names = defaults.keys() | getattr(config_class, "attribute_map", {}).keys()
    options = {name: size for name, size in SIZES.items() if name in names}
    overrides = OVERRIDES.get(config_class.model_type, {})
    options |= overrides
    for name, part in getattr(config_class, "sub_configs", {}).items():
        if name in overrides:
            continue
        if part is not PreTrainedConfig and hasattr(part, "model_type"):
            options[name] = tiny_config(part)
        elif isinstance(defaults.get(name), dict) and (kind := defaults[name].get("model_type")):
            options[name] = tiny_config(CONFIG_MAPPING[kind])
    return config_class(**options)


def save_tiny(family: str, folder: Path) -> None:
    """Write a tiny model of a family and a tokenizer of bytes.

    Raises:
        Exception: the family has no tiny form.
    """
    torch.manual_seed(0)
    config = tiny_config(CONFIG_MAPPING[family])
    auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        size = auto_class.from_config(config).num_parameters()
    if size > LARGEST:
        raise ValueError(f"its smallest form has {size:,} parameters")
    model = auto_class.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:  # larger than usual, so that different inputs have different outputs
            torch.nn.init.normal_(parameter, std=0.3)
    model.generation_config.update(**IDS)
    model.save_pretrained(folder)
    auto_class.from_pretrained(folder)  # some are saved as another family
    tokens = {token: id for id, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    backend = Tokenizer(tokenizer_models.BPE(vocab=tokens, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    roles = {f"{token[1:-1]}_token": token for token in SPECIAL}
    PreTrainedTokenizerFast(tokenizer_object=backend, **roles).save_pretrained(folder)
