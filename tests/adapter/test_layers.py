"""Layers that torch compiles, against the same layers as they are."""

from functools import partial

import pytest
import torch
from tiny_models import FEATURES, adapt, batch, build
from tiny_runs import checkpoint, do, predictions
from torch._dynamo.utils import counters

from flix_lightning.adapter.layers import compile_layers
from flix_lightning.common.errors import UserError

#: Rows that differ, the same over longer texts, rows that are alike, none; and all of that again.
BATCHES = [
    (FEATURES, 1),
    (FEATURES[::-1], 2),
    ([("task:ner", "language:am")] * 4, 1),
    ([()] * 4, 2),
    (FEATURES[::-1], 1),
    ([("language:am",)] * 4, 2),
]

#: One projection a layer, as each costs seconds of compiling.
TARGETS = {"t5": r".*\.q", "gpt2": r".*\.c_attn"}


def adapted(architecture):
    """A T5 of one layer in encoder and decoder each, a GPT-2 of two; both with an adapter."""
    model = build(architecture, torch.float32)
    if architecture == "t5":
        for stack in (model.encoder, model.decoder):
            stack.block = stack.block[:1]
    return model, adapt(model, targets=TARGETS[architecture])


def trained(model, adapter, batches):
    """The loss of each batch, and the gradients of the pools."""
    for seed, (features, times) in enumerate(batches):
        inputs = {key: torch.cat([value] * times, dim=1) for key, value in batch(model, seed=seed).items()}
        labels = inputs.pop("labels")
        if model.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = labels
        with adapter.route(adapter.space.rows(features)):
            loss = model(**inputs, use_cache=False).logits.square().mean()
        model.zero_grad()
        loss.backward()
        yield loss.detach(), [pool.grad.clone() for pool in adapter.parameters()]


def generated(model, adapter):
    inputs = batch(model)
    del inputs["labels"]
    with adapter.route(adapter.space.rows(FEATURES)):
        return model.generate(**inputs, max_new_tokens=5, do_sample=False)


@pytest.mark.parametrize(
    ("architecture", "recomputed", "batches"), [("t5", False, BATCHES[:3]), ("gpt2", True, BATCHES)]
)
def test_compiled_layers_train_and_generate_as_they_are(architecture, recomputed, batches, monkeypatch):
    torch._dynamo.reset()
    counters.clear()
    # Up to the graphs, which is what may go wrong here, in a third of the time.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    plain, compiled = adapted(architecture), adapted(architecture)
    compile_layers(compiled[0])
    if recomputed:
        compiled[1].checkpoint_layers(compiled[0])
    torch.testing.assert_close(list(trained(*compiled, batches)), list(trained(*plain, batches)))
    assert not counters["graph_break"]
    assert not counters["unimplemented"]
    graphs = counters["stats"]["unique_graphs"]
    assert (
        2 <= graphs <= 12
    )  # two kinds of layer, rows that differ, are alike, are none; and once for any shape
    list(trained(*compiled, batches))
    assert torch.equal(generated(*compiled), generated(*plain))
    assert counters["stats"]["unique_graphs"] == graphs


def test_a_run_of_compiled_layers_ends_as_any_does(tiny, decoder_base, tmp_path):
    model = [f"model.pretrained={decoder_base}", r"model.targets='.*\.c_attn'"]
    short = [*tiny, *model, "trainer.max_steps=2", "trainer.batch_size=4"]
    plain = do(short, tmp_path / "plain")
    torch._dynamo.reset()
    counters.clear()
    compiled = do([*short, "trainer.compile=true"], tmp_path / "compiled")
    assert counters["stats"]["unique_graphs"]
    assert compiled.name == plain.name
    assert predictions(compiled) == predictions(plain)
    torch.testing.assert_close(checkpoint(compiled)["adapter"], checkpoint(plain)["adapter"])


def test_a_machine_without_a_compiler_is_told_so(tiny, tmp_path, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    with pytest.raises(
        UserError, match=r"torch cannot compile here .*install them, or set trainer\.compile=f"
    ):
        do([*tiny, "trainer.compile=true", r"model.targets='.*\.q'"], tmp_path)


def test_a_model_that_names_no_layers_is_refused():
    with pytest.raises(UserError, match=r"Linear does not mark its layers.* trainer\.compile=true"):
        compile_layers(torch.nn.Linear(2, 2))
