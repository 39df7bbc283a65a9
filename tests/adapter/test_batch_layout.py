"""Projections whose inputs keep examples apart or mix them, in every layout that a model may choose."""

import copy

import pytest
import torch
from tiny_models import FEATURES, RANKS, adapt, batch, build
from torch import nn

from flix_lightning.adapter import FeatureSpace, inject
from flix_lightning.common.errors import UserError

TARGET = "model.layers.0.mlp.up_proj"


def sequence_first(linear, x):
    return linear(x.transpose(0, 1)).transpose(0, 1)


def tokens_in_a_row(linear, x):
    return linear(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def tokens_of_all_examples_in_turn(linear, x):
    return linear(x.transpose(0, 1).flatten(0, 1)).unflatten(0, x.shape[1::-1]).transpose(0, 1)


def heads(linear, x):
    """Two inputs an example, side by side."""
    return linear(x.repeat_interleave(2, dim=0))[::2]


def some_tokens(linear, x):
    """As an expert gets them: those that a router sends it, of any example."""
    chosen = x[..., 0] > 0
    output = x.new_zeros(*x.shape[:2], linear.out_features)
    output[chosen] = linear(x[chosen])
    return output


def without_gradient(linear, x):
    return linear(x).detach()


def weight_alone(linear, x):
    return nn.functional.linear(x, linear.weight)


class Pair(nn.Linear):
    """As a router that gives scores and choices."""

    def forward(self, x):
        return super().forward(x), 0


def pair(linear, x):
    linear.__class__ = Pair
    return linear(x)[0]


def with_layout(layout):
    """A Llama whose first `up_proj` sees its input so."""
    model = build("llama")
    mlp = model.model.layers[0].mlp

    def forward(x):
        return mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) * layout(mlp.up_proj, x))

    mlp.forward = forward
    return model


@pytest.mark.parametrize("layout", [tokens_in_a_row, heads])
def test_a_layout_that_keeps_examples_apart_is_adapted(layout):
    plain, model = (adapt(with_layout(one)) or one for one in (lambda linear, x: linear(x), layout))
    assert TARGET in plain.modules
    assert TARGET in model.modules


@pytest.mark.parametrize(
    "layout",
    [sequence_first, tokens_of_all_examples_in_turn, some_tokens, without_gradient, weight_alone, pair],
)
def test_a_projection_that_cannot_be_adapted_is_left_out_or_refused(layout, caplog):
    model = with_layout(layout)
    adapter = adapt(model)
    assert TARGET not in adapter.modules
    assert len(adapter.modules) == 13
    assert "model.layers.*.mlp.up_proj (1) of LlamaForCausalLM" not in adapter.summary()
    assert "not adapted: model.layers.*.mlp.up_proj (1) of LlamaForCausalLM" in caplog.text
    for targets in ("model.layers.0.*", ".*up_proj"):
        with pytest.raises(UserError, match=r"must leave out model.layers.\*.mlp.up_proj \(1\)") as error:
            inject(with_layout(layout), FeatureSpace(RANKS), targets)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "layout", [sequence_first, tokens_in_a_row, tokens_of_all_examples_in_turn, heads, some_tokens]
)
def test_a_mixed_batch_is_each_example_alone_in_any_layout(layout):
    model = with_layout(layout)
    adapter = adapt(model)
    inputs = batch(model)
    with adapter.route(adapter.space.rows(FEATURES)):
        together = model(**inputs).logits
    for i, names in enumerate(FEATURES):
        alone = {key: value[i : i + 1] for key, value in inputs.items()}
        with adapter.route(adapter.space.rows([names])):
            torch.testing.assert_close(model(**alone).logits[0], together[i])


def test_a_model_that_does_not_run_on_text_is_refused():
    model = build("llama")
    model.model.layers[0].forward = lambda *_, **__: {}["pixels"]
    with pytest.raises(UserError, match=r"LlamaForCausalLM does not run on text alone \('pixels'\)"):
        adapt(model)


def test_one_projection_in_two_places_is_adapted_in_both():
    model = build("llama")
    first, second = model.model.layers
    second.mlp.up_proj = first.mlp.up_proj
    adapter = adapt(model)
    assert first.mlp.up_proj is second.mlp.up_proj is adapter.modules[TARGET]


# With 300, T5's own code clamps what overflows, so that its logits stay finite.
@pytest.mark.parametrize(("architecture", "factor"), [("t5", 3000), ("t5", 300), ("gpt2", 3000)])
def test_a_base_that_overflows_in_float16_is_told_so(architecture, factor):
    model = build(architecture, torch.float32)
    for name, weight in model.named_parameters():
        if "DenseReluDense" in name or "mlp" in name:
            weight.data.mul_(factor)
    adapt(copy.deepcopy(model))
    adapt(copy.deepcopy(model).bfloat16())
    with pytest.raises(UserError, match=r"float16 are not finite.*bfloat16"):
        adapt(model.half())
