"""Generation with a batch of mixed features against each example alone, on weights merged for it."""

import copy
import weakref
from contextlib import nullcontext

import pytest
import torch
from tiny_models import ARCHITECTURES, FEATURES, RANKS, adapt, batch, build

from flix_lightning.adapter import update
from flix_lightning.adapter.reference import merge

STEPS = 5
OPTIONS = {
    "max_new_tokens": STEPS,
    "min_new_tokens": STEPS,
    "return_dict_in_generate": True,
    "output_logits": True,
    "output_scores": True,
}
STRATEGIES = {
    "greedy": {"num_beams": 1, "do_sample": False},
    "beam": {"num_beams": 3, "do_sample": False},
    "beam, several returned": {"num_beams": 4, "num_return_sequences": 2, "do_sample": False},
}


def prepare(architecture):
    base = build(architecture)
    model = copy.deepcopy(base)
    adapter = adapt(model)
    inputs = batch(model)
    del inputs["labels"]
    prompts = [ids[mask.bool()][None] for ids, mask in zip(*inputs.values(), strict=True)]
    alone = [merge(base, adapter.state_dict(), RANKS, names) for names in FEATURES]
    return model, adapter, inputs, prompts, alone


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_mixed_batch_generates_what_each_example_generates_alone(architecture, strategy):
    model, adapter, inputs, prompts, alone = prepare(architecture)
    with adapter.route(adapter.space.rows(FEATURES)):
        output = model.generate(**inputs, **OPTIONS, **STRATEGIES[strategy])
    for i, (prompt, single) in enumerate(zip(prompts, alone, strict=True)):
        expected = single.generate(prompt, **OPTIONS, **STRATEGIES[strategy])
        returned = len(expected.sequences)
        own = output.sequences[i * returned : (i + 1) * returned, -STEPS:]
        assert torch.equal(own, expected.sequences[:, -STEPS:])
        for kind in ("scores", "logits"):
            for together, apart in zip(output[kind], expected[kind], strict=True):
                rows = len(apart)
                torch.testing.assert_close(together[i * rows : (i + 1) * rows], apart)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_several_samples_of_an_example_use_its_features(architecture):
    model, adapter, inputs, prompts, alone = prepare(architecture)
    torch.manual_seed(0)
    with adapter.route(adapter.space.rows(FEATURES)):
        output = model.generate(**inputs, **OPTIONS, do_sample=True, num_return_sequences=3)
    logits = torch.stack(output.logits, dim=1)
    for row, sequence in enumerate(output.sequences):
        prompt, single = prompts[row // 3], alone[row // 3]
        written = sequence[None, -STEPS:]
        if model.config.is_encoder_decoder:
            expected = single(input_ids=prompt, decoder_input_ids=sequence[None, :-1]).logits
        else:
            expected = single(torch.cat([prompt, written[:, :-1]], dim=1)).logits[:, -STEPS:]
        torch.testing.assert_close(logits[row], expected[0].float())


@pytest.fixture
def gathered(monkeypatch):
    """What is gathered of the pools, as long as it lives."""
    made, gather = [], update.gather

    def note(*given):
        rows = gather(*given)
        made.append(weakref.ref(rows))
        return rows

    monkeypatch.setattr(update, "gather", note)
    return made


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_are_gathered_once_for_all_tokens_and_let_go(architecture, gathered):
    model = build(architecture)
    adapter = adapt(model)
    inputs = batch(model)
    del inputs["labels"]
    with adapter.route(adapter.space.rows(FEATURES)):
        model.generate(**inputs, **OPTIONS, **STRATEGIES["greedy"])
        assert sum(rows() is not None for rows in gathered) == len(gathered) == 2 * len(adapter.modules)
    assert not any(rows() is not None for rows in gathered)


@pytest.mark.parametrize(
    ("made_in", "off"),
    [
        (nullcontext, torch.no_grad),
        (nullcontext, torch.inference_mode),
        (torch.inference_mode, torch.inference_mode),
    ],
)
def test_pools_that_change_between_two_forwards_are_gathered_anew(made_in, off):
    with made_in():
        model = build(ARCHITECTURES[0])
        adapter = adapt(model)
    inputs, rows = batch(model), adapter.space.rows(FEATURES)

    def logits():
        return model(**inputs).logits

    with off():
        with adapter.route(rows):
            before = logits()
            for pool in adapter.parameters():
                pool[:-1] *= 2
            together = logits()
        with adapter.route(rows):
            apart = logits()
    assert not torch.equal(before, apart)
    assert torch.equal(together, apart)


def test_rows_are_gathered_anew_for_another_precision():
    model = build(ARCHITECTURES[0], torch.float32)
    adapter = adapt(model)
    inputs, rows = batch(model), adapter.space.rows(FEATURES)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), adapter.route(rows):
        apart = model(**inputs).logits
    with torch.no_grad(), adapter.route(rows):
        model(**inputs)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model(**inputs).logits, apart)
