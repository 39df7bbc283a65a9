"""Generation of a batch that its ended texts leave, against Hugging Face's own of the whole batch."""

import pytest
import torch
from families import FAMILIES, Family
from tiny_models import adapt
from transformers import Lfm2Config, MambaConfig, MiniMaxConfig, RecurrentGemmaConfig

from flix_lightning.models import base as models
from flix_lightning.models.generation import Generator

RANKS = {"task:ner": 3, "language:sw": 2, "language:yo": 2}
FEATURES = [("task:ner", "language:sw"), ("language:yo",), (), ("task:ner",)] * 12
LONGEST = 16

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
ATTENTION = {**SIZES, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
#: Models that keep more of a text than keys and values.
OTHERS = {
    # In the same cache.
    "lfm2": Family(Lfm2Config, {**ATTENTION, "layer_types": ["conv", "full_attention"]}, ""),
    # In a cache of its own.
    "minimax": Family(
        MiniMaxConfig,
        {
            **ATTENTION,
            "head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
            "num_local_experts": 2,
            "block_size": 8,
        },
        "",
    ),
    # Nothing but a state.
    "mamba": Family(MambaConfig, {**SIZES, "state_size": 8}, ""),
    # A state in the model itself.
    "recurrent_gemma": Family(
        RecurrentGemmaConfig,
        {
            **ATTENTION,
            "num_key_value_heads": 1,
            "lru_width": 32,
            "attention_window_size": 16,
            "block_types": ["recurrent", "attention"],
        },
        "",
    ),
}


@pytest.fixture(scope="module", params=[*FAMILIES, *OTHERS])
def generator(request, tmp_path_factory):
    """A base with an adapter of random rows."""
    family = {**FAMILIES, **OTHERS}[request.param]
    base = models.load(str(family.save(tmp_path_factory.mktemp("base"))), "main", "float32")
    if request.param != "minimax":  # whose experts have no float64
        base.model.double()
    adapter = adapt(base.model, RANKS)
    # Random models soon say one token over and over; with their tokens' names mixed up they do not.
    head, draw = base.model.get_output_embeddings(), torch.Generator().manual_seed(1)
    mixed = torch.randperm(head.out_features, generator=draw)
    head.register_forward_hook(lambda *called: called[-1][..., mixed])
    return Generator(base, adapter, LONGEST)


@pytest.fixture(scope="module")
def batch(generator):
    """Inputs of different lengths, padded as the model has it."""
    draw = torch.Generator().manual_seed(2)
    lengths = torch.tensor([3 + i % 5 for i in range(len(FEATURES))])[:, None]
    places = torch.arange(7)
    mask = (places if generator.base.is_encoder_decoder else places.flip(0)) < lengths
    ids = torch.randint(8, 250, mask.shape, generator=draw)
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


def whole(generator, batch):
    """What Hugging Face's `generate` gives for the whole batch: ids [batch, at most LONGEST]."""
    inputs = dict(batch)
    if generator.base.is_encoder_decoder:
        inputs["decoder_input_ids"] = generator.starts(batch["input_ids"])
    with generator.adapter.route(generator.adapter.space.rows(FEATURES)):
        made = generator.base.model.generate(**inputs, max_new_tokens=LONGEST)
    start = inputs.get("decoder_input_ids", batch["input_ids"]).shape[1]
    return made[:, start:]


@pytest.fixture
def ending(generator, batch, monkeypatch):
    """Have texts end in the token that makes them end at the most different places."""
    said = generator.base.model.generation_config
    monkeypatch.setattr(said, "eos_token_id", None)
    tokens = whole(generator, batch)
    ends = {
        token: (tokens == token).int().argmax(dim=1)[(tokens == token).any(dim=1)].unique().numel()
        for token in tokens.unique().tolist()
    }
    token = max(ends, key=ends.get)
    assert ends[token] > 2, "texts of one length would show nothing"
    monkeypatch.setattr(said, "eos_token_id", token)
    monkeypatch.setattr(said, "pad_token_id", generator.base.tokenizer.eos_token_id)  # no part of a text
    return token


def test_texts_are_those_of_the_whole_batch(generator, batch, ending):
    expected = generator.base.tokenizer.batch_decode(whole(generator, batch), skip_special_tokens=True)
    assert generator(batch, FEATURES) == expected


def test_texts_that_have_ended_leave_the_batch(generator, batch, ending):
    ended = (whole(generator, batch) == ending).cumsum(dim=1) > 0
    needed = [len(FEATURES), *(~ended).sum(dim=0).tolist()[:-1]]  # at each token
    sizes = []
    head = generator.base.model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    generator(batch, FEATURES)
    handle.remove()
    assert len(sizes) == len(needed)
    if generator.base.model.config.model_type in ("minimax", "mamba", "recurrent_gemma"):
        needed = [len(FEATURES)] * len(needed)
    assert all(0.75 * size < left <= size for size, left in zip(sizes, needed, strict=True))


def test_a_batch_of_one_and_one_without_features_at_all(generator, batch, ending):
    one = {key: value[:1] for key, value in batch.items()}
    whole_batch = generator(batch, FEATURES)
    assert generator(one, FEATURES[:1]) == whole_batch[:1]
    bare = generator(batch, [()] * len(FEATURES))
    assert bare[2] == whole_batch[2]
