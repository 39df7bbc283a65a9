"""Generation of a batch that its ended texts leave, against Hugging Face's own without any padding."""

import pytest
import torch
from families import FAMILIES, Family
from tiny_models import adapt
from torch.nn.utils.rnn import pad_sequence
from transformers import Lfm2Config, MambaConfig, MiniMaxConfig, RecurrentGemmaConfig, RwkvConfig

from flix_lightning.models import base as models
from flix_lightning.models.generation import Generator

RANKS = {"task:ner": 3, "language:sw": 2, "language:yo": 2}
FEATURES = [("task:ner", "language:sw"), ("language:yo",), (), ("task:ner",)] * 6
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
    "rwkv": Family(RwkvConfig, {**SIZES, "attention_hidden_size": 32, "intermediate_size": 48}, ""),
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


#: Model types whose answer to a text depends on its padding (BLOOM's in float64, as here).
READ_PADDING = ("bloom", "minimax", "recurrent_gemma")
#: Those that keep of a text what cannot leave a batch.
STAY_TOGETHER = ("minimax", "mamba", "recurrent_gemma", "rwkv")


def model_type(generator):
    return generator.base.model.config.model_type


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


def groups(generator, batch, padded=True):
    """The rows of each batch that the model may be given, in order."""
    rows = range(len(FEATURES))
    if model_type(generator) == "rwkv":  # whose cache mixes up the examples of a batch
        return [[row] for row in rows]
    if padded and model_type(generator) not in READ_PADDING:
        return [list(rows)]
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    return [[row for row in rows if lengths[row] == length] for length in dict.fromkeys(lengths)]


def plain(generator, batch):
    """What Hugging Face's `generate` gives without padding: ids [batch, at most LONGEST]."""
    model, texts = generator.base.model, {}
    for rows in groups(generator, batch, padded=False):
        length = int(batch["attention_mask"][rows[0]].sum())
        mask = batch["attention_mask"][rows].bool()
        inputs = {"input_ids": batch["input_ids"][rows][mask].view(len(rows), length)}
        start = length
        if generator.base.is_encoder_decoder:
            inputs["decoder_input_ids"] = generator.base.starts(inputs["input_ids"])
            start = inputs["decoder_input_ids"].shape[1]
        with generator.adapter.route(generator.adapter.space.rows([FEATURES[row] for row in rows])):
            made = model.generate(**inputs, max_new_tokens=LONGEST)[:, start:]
        texts |= dict(zip(rows, made, strict=True))
    made = [texts[row] for row in sorted(texts)]
    return pad_sequence(made, batch_first=True, padding_value=generator.base.tokenizer.eos_token_id)


@pytest.fixture
def ending(generator, batch, monkeypatch):
    """Have texts end in the token that makes them end at the most different places."""
    said = generator.base.model.generation_config
    monkeypatch.setattr(said, "eos_token_id", None)
    tokens = plain(generator, batch)
    ends = {
        token: (tokens == token).int().argmax(dim=1)[(tokens == token).any(dim=1)].unique().numel()
        for token in tokens.unique().tolist()
    }
    token = max(ends, key=ends.get)
    assert ends[token] > 2, "texts of one length would show nothing"
    monkeypatch.setattr(said, "eos_token_id", token)
    monkeypatch.setattr(said, "pad_token_id", generator.base.tokenizer.eos_token_id)  # no part of a text
    return token


def test_texts_are_those_without_padding(generator, batch, ending):
    expected = generator.base.tokenizer.batch_decode(plain(generator, batch), skip_special_tokens=True)
    assert generator(batch, FEATURES) == expected


def test_texts_that_have_ended_leave_the_batch(generator, batch, ending):
    ended = (plain(generator, batch) == ending).cumsum(dim=1) > 0
    needed = []
    for rows in groups(generator, batch):
        left = [len(rows), *(~ended[rows]).sum(dim=0).tolist()[:-1]]  # at each token
        left = [count for count in left if count]
        needed += [len(rows)] * len(left) if model_type(generator) in STAY_TOGETHER else left
    sizes = []
    head = generator.base.model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    generator(batch, FEATURES)
    handle.remove()
    assert len(sizes) == len(needed)
    assert all(0.75 * size < left <= size for size, left in zip(sizes, needed, strict=True))


def test_a_batch_of_one_and_one_without_features_at_all(generator, batch, ending):
    own = batch["attention_mask"][0].bool()
    one = {key: value[:1, own] for key, value in batch.items()}
    whole_batch = generator(batch, FEATURES)
    assert generator(one, FEATURES[:1]) == whole_batch[:1]
    bare = generator(batch, [()] * len(FEATURES))
    assert bare[2] == whole_batch[2]
