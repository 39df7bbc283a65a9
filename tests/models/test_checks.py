"""What a base is refused for before it trains, and what its texts are checked for."""

import pytest
import torch
from families import FAMILIES, LLAMA, Family
from tiny_models import adapt, batch, build, byte_tokenizer
from tiny_runs import do
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import (
    BertConfig,
    LEDConfig,
    LlamaConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
)

from flix_lightning.adapter.layout import sample_tokens
from flix_lightning.common.errors import UserError
from flix_lightning.models import base as models
from flix_lightning.models.base import Base
from flix_lightning.models.checks import check_lengths, differ
from flix_lightning.models.generation import Generator
from flix_lightning.training.train import Training

BERT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 64, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip
#: Decoders with a table of positions: of all its rows, of all but two that are special.
DECODERS = {
    "gpt2": FAMILIES["gpt2"],
    "opt": Family(
        OPTConfig,
        {**BERT, "ffn_dim": 48, "word_embed_proj_dim": 32, "bos_token_id": 0, "pad_token_id": 0},
        "",
    ),
    "xlm-roberta": Family(XLMRobertaConfig, {**BERT, "is_decoder": True}, ""),
}
#: Encoder-decoders with as many positions for inputs as for targets, and with fewer.
ENCODER_DECODERS = {
    "bart": FAMILIES["bart"],
    "led": Family(
        LEDConfig,
        {
            **FAMILIES["bart"].options,
            "max_encoder_position_embeddings": 64,
            "max_decoder_position_embeddings": 40,
            "attention_window": 8,
        },
        "",
        FAMILIES["bart"].special,
    ),
}


def load(family, folder):
    return models.load(str(family.save(folder)), "main", "float32")


def runs(base, inputs, targets):
    """Whether the base takes an input and a target of so many tokens, as in training."""
    given = torch.full((1, inputs), 9)
    options = {}
    if base.is_encoder_decoder:
        target = torch.full((1, targets - 1), 9)
        options["decoder_input_ids"] = torch.cat([torch.tensor([base.decoder_start]), target], dim=1)
    else:
        given = torch.full((1, inputs + targets), 9)
    try:
        with torch.no_grad():
            base.model(given, **options, use_cache=False)
    except (IndexError, RuntimeError):
        return False
    return True


def fits(base, inputs, targets):
    try:
        check_lengths(base.model, len(base.decoder_start), inputs, targets)
    except UserError:
        return False
    return True


@pytest.mark.parametrize("family", {**DECODERS, **ENCODER_DECODERS})
def test_lengths_fit_just_when_the_model_runs(family, tmp_path):
    base = load({**DECODERS, **ENCODER_DECODERS}[family], tmp_path)
    lengths = [(n, m) for n in (20, 40, 64, 65, 300) for m in (20, 23, 24, 25, 39, 40, 41, 62, 63, 64)]
    expected = [runs(base, *one) for one in lengths]
    assert True in expected
    assert False in expected
    assert [fits(base, *one) for one in lengths] == expected


@pytest.mark.parametrize("family", ["t5", "llama", "bloom"])
def test_relative_positions_have_no_limit(family, tmp_path):
    assert fits(load(FAMILIES[family], tmp_path), 5000, 100)


#: Frequencies of positions that follow from the longest text of a batch, beyond 24 tokens.
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
LONG = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 24} | {
    "short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0]
}  # fmt: skip
OF_THE_BATCH = {
    "dynamic": LLAMA | {"rope_parameters": DYNAMIC, "max_position_embeddings": 24},
    "longrope": LLAMA | {"rope_parameters": LONG, "max_position_embeddings": 64},
}


@pytest.mark.parametrize("family", OF_THE_BATCH)
def test_lengths_fit_just_when_a_text_does_not_depend_on_its_batch(family, tmp_path):
    base = load(Family(LlamaConfig, OF_THE_BATCH[family], ""), tmp_path)
    ids = sample_tokens(base.model, 2, 60)
    for length in (20, 24, 25, 60):
        with torch.no_grad():
            alone, together = (base.model(one).logits[0, :20] for one in (ids[:, :20], ids[:, :length]))
        assert fits(base, length - 8, 8) is not differ(alone, together)
    with pytest.raises(UserError, match=r"more than the 24 .*longest text of a batch.*max_input_length=16"):
        check_lengths(base.model, 0, 52, 8)


def test_the_largest_length_that_fits_is_named(tmp_path):
    decoder, encoder_decoder = (load(FAMILIES[name], tmp_path / name).model for name in ("gpt2", "bart"))
    for lengths, message in (
        ((1024, 14), "data.max_input_length=50$"),
        ((1024, 70), "more than the 64 tokens that GPT2LMHeadModel takes: take smaller ones"),
    ):
        with pytest.raises(UserError, match=message):
            check_lengths(decoder, 0, *lengths)
    for lengths, message in (
        ((1024, 14), "data.max_input_length=1024, but .* at most 64: take data.max_input_length=64"),
        ((64, 64), "data.max_target_length=64, but .* at most 63: take data.max_target_length=63"),
    ):
        with pytest.raises(UserError, match=message) as error:
            check_lengths(encoder_decoder, 2, *lengths)
        assert "\n" not in str(error.value)


def test_a_run_is_refused_before_it_trains(tiny, decoder_base, tmp_path, monkeypatch):
    monkeypatch.setattr(Training, "execute", lambda _: pytest.fail("it trains"))
    overrides = [*tiny, f"model.pretrained={decoder_base}", "model.targets=all-linear"]
    with pytest.raises(UserError, match=r"data\.max_input_length"):
        do([*overrides, "data.max_input_length=1024"], tmp_path)


def test_a_model_that_sees_what_it_is_to_predict_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"BertLMHeadModel sees .* is_decoder must be true"):
        load(Family(BertConfig, BERT, ""), tmp_path / "encoder")
    load(Family(BertConfig, {**BERT, "is_decoder": True}, ""), tmp_path / "decoder")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("architecture", ["t5", "gpt2"])
def test_logits_that_are_not_finite_make_no_text(architecture, value):
    model = build(architecture)
    adapter = adapt(model)
    generator = Generator(Base(model, None, architecture == "t5"), adapter, 4)
    generator.base.model.get_output_embeddings().register_forward_hook(
        lambda _, inputs, output: output.index_fill(0, torch.tensor([2]), value)
    )
    inputs = batch(model)
    with pytest.raises(UserError, match=r"numbers in .* are not finite.*bfloat16") as error:
        generator(inputs, [()] * 4)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("factor", [3000, 300])  # with 300, T5's own code clamps what overflows
def test_a_base_that_overflows_in_float16_is_told_so(factor):
    model = build("t5", torch.float32)
    adapter, inputs = adapt(model), batch(model)
    for name, weight in model.named_parameters():
        if "DenseReluDense" in name:
            weight.data.mul_(factor)
    tokenizer = byte_tokenizer()
    assert len(Generator(Base(model, tokenizer, True), adapter, 4)(inputs, [()] * 4)) == 4
    with pytest.raises(UserError, match="not finite"):
        Generator(Base(model.half(), tokenizer, True), adapter, 4)(inputs, [()] * 4)


@pytest.mark.parametrize("clean_up", [True, False])
def test_texts_are_as_their_tokens_say(clean_up, monkeypatch):
    text = "A , B . does n't it 's ? !"
    backend = Tokenizer(tokenizer_models.Unigram([(f"▁{word}", -1.0) for word in text.split()], unk_id=0))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=clean_up)
    ids = tokenizer(text)["input_ids"]
    assert (tokenizer.decode(ids) == text) is not clean_up
    model = build("gpt2")
    generator = Generator(Base(model, tokenizer, False), adapt(model), 4)
    monkeypatch.setattr(generator, "_generate", lambda *_: [ids] * 4)
    assert generator(batch(model), [()] * 4) == [text] * 4
