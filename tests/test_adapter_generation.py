"""Generation with a batch of mixed features against each example alone, on weights merged for it."""

import copy

import pytest
import torch

from reference import merged
from tiny_models import ARCHITECTURES, FEATURES, RANKS, adapt, batch, build

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
    alone = [merged(base, adapter.state_dict(), RANKS, names) for names in FEATURES]
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
