"""Layers compiled by torch, against the same layers as they are."""

from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

from flix_lightning.errors import UserError
from flix_lightning.layers import compile_layers, find_layers
from tiny_models import FEATURES, adapt, batch, build

#: Batches of other lengths, rows that differ, that are alike, and that are none.
BATCHES = [
    FEATURES,
    FEATURES[::-1],
    [("task:ner", "language:am")] * 4,
    [()] * 4,
    FEATURES,
    [("language:am",)] * 4,
]


#: One projection a layer, as each costs compiling time.
TARGETS = {"t5": r".*\.q", "gpt2": r".*\.c_attn"}


@pytest.fixture
def traced(monkeypatch):
    """Compile down to the graphs alone, which is most of what goes wrong, in a third of the time."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


def steps(architecture, compiled, recomputed=False):
    """Losses and gradients of the pools, batch by batch."""
    model = build(architecture, torch.float32)
    adapter = adapt(model, targets=TARGETS[architecture])
    if compiled:
        compile_layers(model)
    if recomputed:
        adapter.checkpoint_layers(model)
    found = []
    for seed, features in enumerate(BATCHES):
        inputs = batch(model, seed=seed)
        if seed > 3:
            inputs = {key: torch.cat([value, value], dim=1) for key, value in inputs.items()}
        labels = inputs.pop("labels")
        if model.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = labels
        with adapter.route(adapter.space.rows(features)), torch.autocast("cpu", enabled=recomputed):
            loss = model(**inputs, use_cache=False).logits.float().square().mean()
        model.zero_grad()
        loss.backward()
        found.append((loss.detach(), [pool.grad.clone() for pool in adapter.parameters()]))
    return found


@pytest.mark.parametrize("architecture", ["t5", "gpt2"])
def test_compiled_layers_train_as_they_are(architecture, traced):
    expected = steps(architecture, compiled=False)
    torch.testing.assert_close(steps(architecture, compiled=True), expected)
    print(architecture, counters)
    assert not counters["graph_break"]
    assert not counters["unimplemented"]
