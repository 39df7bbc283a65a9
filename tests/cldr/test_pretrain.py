import json
import random
import sys
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from flix_lightning.cldr.benchmark import datasets, examples
from flix_lightning.cldr.pretraining import __main__, batches, pretrain, tokenizer
from flix_lightning.cldr.pretraining.batches import Batches, hide, random_spans
from flix_lightning.cldr.pretraining.corpus import pairs
from flix_lightning.models import base as models
from flix_lightning.tasks.definitions import Tasks

TINY = {
    "d_model": 16,
    "d_kv": 2,
    "num_heads": 8,
    "d_ff": 24,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "dropout_rate": 0.0,
}
BYTES = 256
UNSEEN = ["Ელене ᏣᎳᎩ", "שלום ቤት 🙂👩🏽‍🚀", "ⴰⵎⴰⵣⵉⵖ ༡༢༣ ᠮᠣᠩᠭᠣᠯ", "a\u0301 ﬁ İ ß", "鬱龘 뷁", "\\ <0x41> {}"]


def make_tokenizer(seed=0):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "SAMPLE", 1500)
        patch.setattr(tokenizer, "VOCABULARY", 5000)
        return tokenizer.train_tokenizer(seed)


@pytest.fixture(scope="module")
def trained():
    return make_tokenizer()


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    trained.save_pretrained(folder)
    return folder


def shrink(patch):
    patch.setattr(pretrain, "ARCHITECTURE", TINY)
    patch.setattr(pretrain, "SAVE_EVERY", 2)
    patch.setattr(pretrain, "WARMUP", 1)
    patch.setattr(batches, "BATCH", 4)
    patch.setattr(batches, "POOL", 2)


@pytest.fixture
def tiny(monkeypatch):
    shrink(monkeypatch)


# The tokenizer


def back(tokens, text: str) -> str:
    return tokens.decode(tokens(text).input_ids, skip_special_tokens=True)


@pytest.mark.parametrize("text", UNSEEN)
def test_scripts_never_seen_come_back(trained, text):
    assert back(trained, text) == text
    assert trained.unk_token_id not in trained(text).input_ids


def test_every_language_comes_back_from_the_saved_tokenizer(saved):
    read = PreTrainedTokenizerFast.from_pretrained(saved)
    tasks = Tasks.of()
    for task, language in datasets():
        for line in examples("v1", task, language, "test", 3, seed=0):
            for text in (tasks.render(tasks.get(task), line, language), line["target"]):
                assert back(read, text) == text


def test_each_digit_is_a_token(trained):
    numbers = trained.convert_ids_to_tokens(trained("1984 and 12.05", add_special_tokens=False).input_ids)
    digits = [token for token in numbers if any(char.isdigit() for char in token)]
    assert [token.strip("▁") for token in digits] == list("19841205")
    words = [trained.convert_ids_to_tokens(one) for one in range(len(trained)) if one >= BYTES + 30]
    assert not [word for word in words if sum(char.isdigit() for char in word) > 1]


def test_a_name_is_the_same_tokens_before_any_punctuation(trained):
    alone = trained("Guinea-Bissau", add_special_tokens=False).input_ids
    for behind in (",", ":", ";", "?", "?;", "።"):
        assert trained(f"Guinea-Bissau{behind}", add_special_tokens=False).input_ids[: len(alone)] == alone
    # A bracket opens or closes a slot, and is part of what it opens.
    assert "▁[SL:AMOUNT" in trained.tokenize("[IN:MONEY [SL:AMOUNT 5 ] ]")


def test_a_text_ends_and_specials_are_left_out(trained):
    ids = trained("Kenya").input_ids
    assert ids[-1] == trained.eos_token_id
    assert trained.eos_token_id not in ids[:-1]
    assert trained.decode([trained.pad_token_id, *ids], skip_special_tokens=True) == "Kenya"
    sentinels = trained.convert_tokens_to_ids([f"<extra_id_{n}>" for n in range(tokenizer.SENTINELS)])
    assert len(set(sentinels)) == tokenizer.SENTINELS
    assert trained.unk_token_id not in sentinels


# Denoising


def restored(source, target, sentinels):
    """What was hidden put back in its places, and the hidden spans."""
    spans, current = {}, None
    for token in target:
        if token in sentinels:
            assert token not in spans
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    assert target[-1] == sentinels[-1]
    assert spans.pop(sentinels[-1]) == []
    assert [token for token in source if token in sentinels] == list(spans) == sentinels[: len(spans)]
    return [one for token in source for one in spans.get(token, [token])], list(spans.values())


@pytest.mark.parametrize("length", [0, 1, 5, 40, 400])
def test_hidden_spans_and_the_rest_are_the_text(length):
    sentinels = list(range(1000, 1024))
    hidden = 0
    for seed in range(100):
        ids = list(range(length))
        whole, spans = restored(*hide(ids, random_spans(length, random.Random(seed)), sentinels), sentinels)
        assert whole == ids
        assert all(1 <= len(span) <= 5 for span in spans)
        hidden += sum(map(len, spans))
    if length == 40:
        assert 0.15 < hidden / 4000 < 0.35


def test_names_are_hidden_whole_and_nothing_else_is(trained):
    sentinels = trained.convert_tokens_to_ids([f"<extra_id_{n}>" for n in range(tokenizer.SENTINELS)])
    rng, seen = random.Random(0), 0
    for pair in islice(pairs(random.Random(1)), 2000):
        if pair.stream != "names":
            continue
        source, target = Batches(trained, 0, 0, 1).encode(pair, rng)
        whole, spans = restored(source[:-1], target[:-1], sentinels)
        assert trained.decode(whole) == pair.input
        names = [pair.input[start:stop] for start, stop in pair.hidden]
        assert [trained.decode(span).strip() for span in spans] == names
        seen += len(names)
    assert seen > 700


# Batches


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("start", [1, 2, 3, 6])
def test_resumed_batches_are_those_that_would_have_come(trained, tiny, start):
    whole = list(Batches(trained, 0, 0, 7))
    assert len(whole) == 7
    rest = list(Batches(trained, 0, start, 7))
    assert len(rest) == 7 - start
    assert all(map(same, rest, whole[start:]))
    # Neither do they depend on how many steps there will be.
    assert same(next(iter(Batches(trained, 0, start, start + 1))), whole[start])


def test_another_seed_has_other_batches(trained, tiny):
    one, other = (next(iter(Batches(trained, seed, 0, 1))) for seed in (0, 1))
    assert not same(one, other)
    assert not same(*Batches(trained, 0, 0, 2))


def test_batches_are_padded_after_the_end_token(trained, tiny):
    for batch in Batches(trained, 0, 0, 20):
        inputs, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
        assert inputs.shape == mask.shape == (4, min(inputs.shape[1], batches.MAX_INPUT))
        assert labels.shape == (4, min(labels.shape[1], batches.MAX_TARGET))
        ends = mask.sum(1)
        assert torch.equal(mask, (torch.arange(mask.shape[1]) < ends[:, None]).long())
        assert (inputs[torch.arange(4), ends - 1] == trained.eos_token_id).all()
        assert (inputs[mask == 0] == trained.pad_token_id).all()
        assert all(label[label != -100][-1] == trained.eos_token_id for label in labels)


# Training


@pytest.fixture(scope="module")
def started():
    torch.manual_seed(0)
    architecture = pretrain.ARCHITECTURE | {"vocab_size": 50, "decoder_start_token_id": 0}
    model = T5ForConditionalGeneration(T5Config(**architecture, attn_implementation="eager")).eval()
    pretrain.start_attention(model)
    return model


@pytest.mark.parametrize(
    ("head", "seen"), [(0, [9]), (1, [11]), (2, [10]), (3, range(3, 10)), (4, range(11, 18))]
)
def test_heads_start_out_looking_nearby(started, head, seen):
    found = started.encoder(torch.arange(20)[None], output_attentions=True).attentions
    assert found[0][0, head, 10, list(seen)].sum() > 0.95


@pytest.mark.parametrize("head", [5, 6])
def test_heads_start_out_looking_at_the_same_token_elsewhere(started, head):
    tokens = torch.arange(20)
    tokens[15] = tokens[4]
    first, *_ = started.encoder(tokens[None], output_attentions=True).attentions
    assert first[0, head, 4, 15] > 0.9
    assert first[0, head, 15, 4] > 0.9


def test_cross_attention_starts_out_passing_on_what_it_sees(started):
    for block in started.decoder.block:
        attention = block.layer[1].EncDecAttention
        torch.testing.assert_close(attention.o.weight @ attention.v.weight, torch.eye(256), atol=1e-5, rtol=0)


def test_the_loss_weighs_examples_alike():
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**TINY, vocab_size=50, decoder_start_token_id=0)).eval()
    labels = torch.tensor([[1, -100, -100, -100], [2, 3, 4, 5], [6, 0, -100, -100]])
    inputs = {"input_ids": torch.randint(1, 50, (3, 5)), "attention_mask": torch.ones(3, 5).long()}
    inputs["attention_mask"][1, 3:] = 0
    each = []
    for example, wanted in zip(model(**inputs, labels=labels).logits.double(), labels, strict=True):
        chances = [example[place].softmax(0)[token] for place, token in enumerate(wanted) if token >= 0]
        each.append(-sum(torch.log(chance) for chance in chances) / len(chances))
    loss = pretrain._loss(model, {**inputs, "labels": labels})
    torch.testing.assert_close(loss.double(), sum(each) / 3, rtol=1e-6, atol=1e-6)


def run(out, saved, monkeypatch, steps=4):
    """The command, with the tokenizer already there."""
    out.mkdir(exist_ok=True)
    for path in saved.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    threads = str(torch.get_num_threads())
    arguments = ["--out", str(out), "--steps", str(steps), "--seed", "0", "--threads", threads]
    monkeypatch.setattr(sys, "argv", ["pretrain", *arguments])
    __main__.main()
    return load_file(out / "model.safetensors")


@pytest.fixture(scope="module")
def unbroken(saved, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        run(out, saved, patch)
    return out


def fail_at(call: int, function, after=lambda *arguments: None):
    """`function`, until it is called for the `call`-th time and the process is killed."""
    calls = 0

    def wrapped(*arguments, **named):
        nonlocal calls
        calls += 1
        if calls == call:
            after(*arguments)
            raise KeyboardInterrupt
        return function(*arguments, **named)

    return wrapped


def half_written(state, file):
    file.write(b"half a checkpoint")


@pytest.mark.parametrize(
    ("where", "name", "call", "after"),
    [
        (torch.nn.utils, "clip_grad_norm_", 2, lambda *_: None),  # before any checkpoint
        (torch.nn.utils, "clip_grad_norm_", 4, lambda *_: None),  # after that of step 2
        (torch, "save", 2, half_written),  # while the last is written
        (pretrain.T5ForConditionalGeneration, "save_pretrained", 1, lambda *_: None),
    ],
)
def test_killed_and_run_again_ends_as_unbroken(
    unbroken, saved, tiny, tmp_path, monkeypatch, where, name, call, after
):
    with monkeypatch.context() as patch:
        patch.setattr(where, name, fail_at(call, getattr(where, name), after))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out", saved, patch)
    assert not (tmp_path / "out/model.safetensors").exists()
    weights, wanted = run(tmp_path / "out", saved, monkeypatch), load_file(unbroken / "model.safetensors")
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(weights[key], wanted[key]) for key in wanted)


def test_steps_and_checkpoints_are_logged(unbroken):
    lines = [json.loads(line) for line in (unbroken / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert all(line["loss"] > 0 for line in lines)


def test_every_weight_was_trained(unbroken, saved, tiny, tmp_path, monkeypatch):
    first = run(tmp_path / "out", saved, monkeypatch, steps=1)
    last = load_file(unbroken / "model.safetensors")
    assert not [key for key in last if torch.equal(first[key], last[key])]
    assert {tensor.dtype for tensor in last.values()} == {torch.bfloat16}


def test_the_folder_is_a_base_model(unbroken, trained):
    base = models.load(str(unbroken), "main", "float32")
    assert base.is_encoder_decoder
    assert base.tokenizer.get_vocab() == trained.get_vocab()
    assert base.model.config.d_model == TINY["d_model"]
    inputs = base.tokenizer(["parse English: 3 days", "copy: Kenya"], padding=True, return_tensors="pt")
    outputs = base.model.generate(**inputs)
    assert outputs.shape[0] == 2
    assert 1 < outputs.shape[1] <= 65
    assert (outputs[:, 0] == base.tokenizer.pad_token_id).all()


def test_the_tokenizer_follows_from_the_seed(tiny, tmp_path, monkeypatch, saved):
    monkeypatch.setattr(pretrain, "train_tokenizer", make_tokenizer)
    for seed, same in ((0, True), (1, False)):
        pretrain.pretrain(tmp_path / str(seed), steps=1, seed=seed)
        made = (tmp_path / str(seed) / "tokenizer.json").read_bytes()
        assert (made == (saved / "tokenizer.json").read_bytes()) == same


@pytest.mark.parametrize("name", sorted(models.BUILT_IN))
def test_every_built_in_version_loads_and_is_small(name):
    base = models.load(name, "main", "float32")
    assert (models.BUILT_IN[name] / "model.safetensors").stat().st_size < 20e6
    for text in UNSEEN:
        assert back(base.tokenizer, text) == text
    inputs = base.tokenizer(["copy: Kenya"], return_tensors="pt")
    assert base.tokenizer.batch_decode(base.model.generate(**inputs), skip_special_tokens=True) == ["Kenya"]
