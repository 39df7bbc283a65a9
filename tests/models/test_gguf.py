"""A model of a few thousand weights, written as the GGUF file that a package would carry."""

import hashlib
import sys
from types import ModuleType

import gguf
import numpy as np
import pytest
import torch
from families import GEMMA3
from folders import made
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from flix_lightning.common.errors import UserError
from flix_lightning.models import base as models
from flix_lightning.models import gguf as packaged

TOKENS = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    *(f"<0x{byte:02X}>" for byte in range(256)),
    "▁",
    *"abc",
    "ab",
    "▁c",
]
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


Q8, F32 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F32


@pytest.fixture
def original():
    torch.manual_seed(0)
    options = {
        **GEMMA3,
        "intermediate_size": 64,  # rows of whole 32s, as blocks of 8 bits are
        # What no key of a GGUF file says is as in Gemma 3 270M.
        "layer_types": ["sliding_attention"] * 2,
        "query_pre_attn_scalar": 256,
    }
    config = Gemma3TextConfig(**options, vocab_size=len(TOKENS), max_position_embeddings=64)
    model = Gemma3ForCausalLM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3)
    return model


def write(model, path):
    config = model.config
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
    writer.add_sliding_window(config.sliding_window)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([-float(place) for place in range(len(TOKENS))])
    kinds = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.UNKNOWN] + [gguf.TokenType.BYTE] * 256
    writer.add_token_types([*kinds, *[gguf.TokenType.NORMAL] * (len(TOKENS) - len(kinds))])
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        stem = name.removesuffix(".weight")
        prefix = ""
        if stem.startswith("model.layers."):
            _, _, layer, stem = stem.split(".", 3)
            prefix = f"blk.{layer}."
        array = weight.numpy() + ("norm" in name)  # GGUF keeps the factors of norms themselves
        kind = Q8 if "proj" in name else F32
        tensor = gguf.quants.quantize(array.astype(np.float32), kind)
        writer.add_tensor(f"{prefix}{NAMES[stem]}.weight", tensor, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def package(original, tmp_path, monkeypatch):
    """A package that carries it, as far as `ensure` looks at one; it counts how often it is asked."""
    write(original, tmp_path / "whole.gguf")
    content = (tmp_path / "whole.gguf").read_bytes()
    module = ModuleType("tiny_gguf")
    module.MODEL_NAME, module.EXPECTED_SHA256 = "tiny.gguf", hashlib.sha256(content).hexdigest()
    module.asked = 0

    def assemble(path):
        module.asked += 1
        path.write_bytes(content)
        return path

    module.assemble = assemble
    monkeypatch.setitem(sys.modules, "tiny_gguf", module)
    return module


def test_converted_once_it_gives_the_originals_logits(original, package, tmp_path, caplog):
    with caplog.at_level("INFO"):
        folder = packaged.ensure("tiny_gguf", "Free to use", str(tmp_path / "models"))
        again = packaged.ensure("tiny_gguf", "Free to use", str(tmp_path / "models"))
    assert folder == again
    assert package.asked == 1
    assert caplog.text.count("Free to use") == 2
    assert not list(folder.glob("*.gguf"))
    base = models.load(str(folder), "main", "float32")
    ids = torch.tensor([base.tokenizer("abc c")["input_ids"]])
    assert base.tokenizer.convert_ids_to_tokens(ids[0]) == ["<bos>", "ab", "c", "▁c"]
    assert base.tokenizer.decode(ids[0], skip_special_tokens=True) == "abc c"
    with torch.no_grad():
        for name, weight in original.named_parameters():
            if "proj" in name:
                weight.copy_(
                    torch.tensor(gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), Q8), Q8))
                )
            weight.copy_(weight.bfloat16())  # what is kept of them
        torch.testing.assert_close(base.model(ids).logits, original(ids).logits, rtol=1e-4, atol=1e-4)


def test_broken_off_nothing_is_left(package, tmp_path, monkeypatch):
    def broken(path):
        path.write_bytes(b"half")
        raise ValueError("Assembled file sha256 did not match expected value")

    monkeypatch.setattr(package, "assemble", broken)
    with pytest.raises(UserError, match=r"tiny_gguf: .*sha256.*install it again"):
        packaged.ensure("tiny_gguf", "", str(tmp_path / "models"))
    assert made(tmp_path / "models") == []


def test_a_package_that_is_not_installed(tmp_path):
    with pytest.raises(UserError, match=r"no_such_gguf.*pip install .* no-such-gguf"):
        packaged.ensure("no_such_gguf", "", str(tmp_path))
