import copy
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from reference import pairs
from tiny_models import ARCHITECTURES, FEATURES, RANKS, adapt, batch, build
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from flix_lightning.adapter.features import FeatureSpace
from flix_lightning.adapter.projection import AdaptedProjection, inject
from flix_lightning.adapter.reference import merge, project
from flix_lightning.adapter.routing import Routing
from flix_lightning.common.errors import UserError

SPACE = FeatureSpace(RANKS)
OFF = [(), ("language:xx",), ("script:latin",), ()]
SAME = [("task:ner", "language:am"), ("language:am", "task:ner", "language:xx")] * 2


def projection(kind):
    torch.manual_seed(0)
    base = {"linear": nn.Linear(5, 7), "no bias": nn.Linear(5, 7, bias=False), "conv1d": Conv1D(7, 5)}[kind]
    routing = Routing()
    module = AdaptedProjection("some.q", base.double().requires_grad_(False), SPACE, routing, seed=0)
    with torch.no_grad():
        for pool in (module.A, module.B):
            pool[:-1] = torch.randn_like(pool[:-1])
    return module, routing


def by_kind(feature):
    """What dropout of 0.5, 0.75 and 0 multiplies the features of each kind by, where it rescales."""
    return {"task": 2.0, "language": 4.0}.get(feature.partition(":")[0], 1.0)


@pytest.mark.parametrize("factor", [None, by_kind])
@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 5), (4, 2, 3, 5)])
@pytest.mark.parametrize("features", [FEATURES, SAME, OFF], ids=["mixed", "same", "off"])
@pytest.mark.parametrize("kind", ["linear", "no bias", "conv1d"])
def test_a_projection_and_all_its_gradients(kind, features, shape, factor):
    module, routing = projection(kind)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(*shape[:-1], 7, dtype=torch.float64)
    with routing.use(SPACE.rows(features, factor)):
        output = module(x)
        with torch.no_grad():
            torch.testing.assert_close(module(x), output)
    output.backward(direction)

    weight = module.base.weight.T if kind == "conv1d" else module.base.weight
    reference = pairs(RANKS, module.A, module.B)
    x_too = x.detach().clone().requires_grad_()
    scaled = {"factor": factor} if factor else {}
    expected = project(x_too, weight, module.base.bias, reference, features, **scaled)
    expected.backward(direction)

    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(x.grad, x_too.grad)
    start = 0
    for feature, rank in RANKS.items():
        for pool, own in zip((module.A, module.B), reference[feature], strict=True):
            wanted = torch.zeros_like(own) if own.grad is None else own.grad
            torch.testing.assert_close(pool.grad[start : start + rank], wanted)
        start += rank
    assert module.A.grad[-1].eq(0).all()
    assert module.B.grad[-1].eq(0).all()
    assert module.base.weight.grad is None


def test_uniform_rows_give_what_gathered_rows_give():
    module, routing = projection("linear")
    rows = SPACE.rows(SAME)
    assert rows.uniform
    results = []
    for uniform in (True, False):
        x = torch.arange(60, dtype=torch.float64).reshape(4, 3, 5).sin().requires_grad_()
        module.zero_grad()
        with routing.use(replace(rows, uniform=uniform)):
            output = module(x)
        output.square().sum().backward()
        results.append([output, x.grad, module.A.grad, module.B.grad])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow)


@pytest.mark.parametrize("repeats", [2, 3])
def test_rows_repeat_with_each_example(repeats):
    module, routing = projection("linear")
    x = torch.randn(4 * repeats, 3, 5, dtype=torch.float64)
    with routing.use(SPACE.rows(FEATURES)):
        output = module(x)
    features = [names for names in FEATURES for _ in range(repeats)]
    reference = pairs(RANKS, module.A, module.B)
    torch.testing.assert_close(output, project(x, module.weight, module.bias, reference, features))


@pytest.mark.parametrize("size", [1, 3, 6])
def test_a_batch_that_does_not_fit_the_rows_is_refused(size):
    module, routing = projection("linear")
    with (
        routing.use(SPACE.rows(FEATURES)),
        pytest.raises(RuntimeError, match=f"some.q got {size} inputs .* 4"),
    ):
        module(torch.randn(size, 5, dtype=torch.float64))


@pytest.mark.parametrize("features", [FEATURES, SAME], ids=["mixed", "same"])
@pytest.mark.parametrize("targets", ["default", "all-linear"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_gives_what_merged_weights_give_each_example(architecture, targets, features):
    base = build(architecture)
    model = copy.deepcopy(base)
    adapter = adapt(model, targets=targets)
    inputs = batch(model)
    with adapter.route(SPACE.rows(features)):
        logits = model(**inputs).logits
    for i, names in enumerate(features):
        alone = {key: value[i : i + 1] for key, value in inputs.items()}
        expected = merge(base, adapter.state_dict(), RANKS, names)(**alone).logits
        visible = slice(None) if base.config.is_encoder_decoder else alone["attention_mask"][0].bool()
        torch.testing.assert_close(logits[i, visible], expected[0, visible])
    assert not torch.allclose(logits, base(**inputs).logits, atol=0.1)


@pytest.mark.parametrize("precision", ["float32", "bf16 autocast", "bf16 weights"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_off_is_the_base_bit_for_bit(architecture, precision):
    model = build(architecture, torch.bfloat16 if precision == "bf16 weights" else torch.float32)
    if architecture == "t5":
        for block in [*model.encoder.block, *model.decoder.block]:
            block.layer[-1].DenseReluDense.wo.float()  # as transformers loads it
    inputs = batch(model)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16 autocast")
    with autocast, torch.no_grad():
        expected = model(**inputs).logits
        adapter = adapt(model)
        with adapter.route(SPACE.rows(OFF)):
            assert torch.equal(model(**inputs).logits, expected)
        with adapter.route(SPACE.rows([(), ("task:ner",), (), ()])):
            logits = model(**inputs).logits
    for i in (0, 2, 3):
        assert torch.equal(logits[i], expected[i])
    assert not torch.equal(logits[1], expected[1])


def test_a_fresh_adapter_changes_nothing_and_draws_its_own_numbers():
    def fresh(seed, torch_seed):
        # Frozen first: attention picks another kernel where its relative bias is trained.
        model = build("t5", torch.float32).requires_grad_(False)
        torch.manual_seed(torch_seed)
        expected = model(**batch(model)).logits
        before = torch.get_rng_state()
        adapter = inject(model, SPACE, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        with adapter.route(SPACE.rows(FEATURES)):
            assert torch.equal(model(**batch(model)).logits, expected)
        return adapter.state_dict()

    first, again, other = fresh(0, 0), fresh(0, 1), fresh(1, 0)
    drawn = [key for key in first if key.endswith(".A")]
    for key, pool in first.items():
        assert torch.equal(pool, again[key])
        assert torch.equal(pool, other[key]) == (key not in drawn)
    values = torch.cat([first[key].flatten() for key in drawn])
    assert values.abs().max() <= 0.25  # 1 / sqrt(16), LoRA's bound
    assert values.std().item() == pytest.approx(0.25 / 3**0.5, rel=0.05)
    assert len({tuple(first[key].flatten().tolist()) for key in drawn}) == len(drawn)


def test_only_the_pools_are_trained():
    model = build("t5")
    adapter = inject(model, SPACE)
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert trained == {id(p) for p in adapter.parameters()}


def test_a_forward_outside_route_is_refused():
    model = build("gpt2")
    adapter = adapt(model)
    with adapter.route(SPACE.rows(FEATURES)):
        model(**batch(model))
    with pytest.raises(RuntimeError, match="route"):
        model(**batch(model))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing", "ignore:fan_in_fan_out")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_shared_feature_is_peft_lora(architecture):
    base = build(architecture, torch.float32)
    model = copy.deepcopy(base)
    ranks = {"shared:all": 6}
    adapter = adapt(model, ranks, targets="default")
    peft = get_peft_model(base, LoraConfig(r=6, lora_alpha=6))
    with torch.no_grad():
        for name, module in adapter.modules.items():
            lora = peft.base_model.model.get_submodule(name)
            lora.lora_A["default"].weight.copy_(module.A[:6])
            lora.lora_B["default"].weight.copy_(module.B[:6].T)
    assert adapter.total_parameters == peft.get_nb_trainable_parameters()[0]
    inputs = batch(model)
    with adapter.route(adapter.space.rows([("shared:all",)] * 4)):
        torch.testing.assert_close(model(**inputs).logits, peft(**inputs).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "targets", "last_parts", "count"),
    [
        ("t5", "default", {"q", "v"}, 12),
        ("t5", "all-linear", {"q", "k", "v", "o", "wi_0", "wi_1", "wo"}, 36),
        ("t5", r"decoder\..*EncDecAttention\.[qv]", {"q", "v"}, 4),
        ("gpt2", "default", {"c_attn"}, 2),
        ("gpt2", "all-linear", {"c_attn", "c_proj", "c_fc"}, 8),
        ("gpt2", ".*(c_fc|lm_head)", {"c_fc"}, 2),
        ("llama", "default", {"q_proj", "v_proj"}, 4),
        ("llama", ".*(lm_head|down_proj)", {"down_proj"}, 2),
        ("llama", r"model\.layers\.0\.self_attn\.q_proj", {"q_proj"}, 1),
    ],
)
def test_targets(architecture, targets, last_parts, count):
    model = build(architecture)
    adapter = inject(model, SPACE, targets)
    assert {name.rpartition(".")[2] for name in adapter.modules} == last_parts
    assert len(adapter.modules) == count
    for name, module in adapter.modules.items():
        assert model.get_submodule(name) is module


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("targets", [".*lm_head", "lm_head|model.lm_head", "shared"])
def test_embeddings_are_never_targets(targets, tied):
    config = BartConfig(
        vocab_size=40, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16,
        encoder_attention_heads=2, decoder_attention_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    model = BartForConditionalGeneration(config)
    with pytest.raises(UserError, match="matches no projection"):
        inject(model, SPACE, targets)
    assert "lm_head" not in inject(model, SPACE, "all-linear").modules


def test_a_vocabulary_as_large_as_the_hidden_size_costs_no_projection():
    config = LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4
    )
    targets = inject(LlamaForCausalLM(config), SPACE, "all-linear").modules
    assert {"q_proj", "o_proj"} <= {name.rpartition(".")[2] for name in targets}
    assert "lm_head" not in targets


@pytest.mark.parametrize("tied", [True, False])
def test_any_layer_tied_to_an_embedding_is_no_target(tied):
    model = build("llama")
    model.second_head = nn.Linear(16, 40 if tied else 39, bias=False, dtype=torch.float64)
    if tied:
        model.second_head.weight = model.model.embed_tokens.weight
    model.model.norm.register_forward_hook(
        lambda _, inputs, output: output + 0 * model.second_head(output).sum()
    )
    assert ("second_head" in inject(model, SPACE, "all-linear").modules) is not tied


@pytest.mark.parametrize(
    ("targets", "named"),
    [
        ("nothing", "'nothing' matches no projection of T5ForConditionalGeneration.*encoder.*"),
        ("q", "'q' matches no projection"),
        (r"decoder\.block", "matches no projection"),
        ("(", "regular expression"),
    ],
)
def test_targets_that_match_nothing_are_refused(targets, named):
    model = build("t5")
    with pytest.raises(UserError, match=named):
        inject(model, SPACE, targets)


def test_a_model_type_without_default_targets_is_refused():
    model = build("t5")
    model.config.model_type = "t6"
    with pytest.raises(UserError, match=r"t6 .*all-linear"):
        inject(model, SPACE)


def test_summary_and_counts():
    model = build("t5")
    adapter = inject(model, SPACE, ".*SelfAttention.q|.*wo")
    # q is 16 -> 16 and wo 24 -> 16, in two encoder and two decoder blocks.
    per_rank = 4 * (16 + 16) + 4 * (24 + 16)
    assert adapter.active_parameters(5) == 5 * per_rank
    assert adapter.total_parameters == 8 * per_rank
    summary = adapter.summary()
    assert "encoder.block.*.layer.*.SelfAttention.q (2)" in summary
    assert "decoder.block.*.layer.*.DenseReluDense.wo (2)" in summary
    assert f"{5 * per_rank:,} active" in summary
    assert f"{8 * per_rank:,} in all" in summary


def test_state_survives_a_round_trip_and_holds_nothing_of_the_base(tmp_path):
    model = build("t5", torch.float32)
    adapter = adapt(model, targets="default")
    torch.save(adapter.state_dict(), tmp_path / "adapter.pt")

    twin = build("t5", torch.float32)
    other = inject(twin, FeatureSpace(RANKS), seed=5)
    state = torch.load(tmp_path / "adapter.pt")
    assert sum(pool.numel() for pool in state.values()) == adapter.total_parameters
    other.load_state_dict(state, RANKS)
    inputs = batch(model)
    with adapter.route(SPACE.rows(FEATURES)), other.route(SPACE.rows(FEATURES)):
        assert torch.equal(model(**inputs).logits, twin(**inputs).logits)
    for pool in other.parameters():
        assert pool.requires_grad
        assert pool[-1].eq(0).all()


Q = "encoder.block.0.layer.0.SelfAttention.q"


@pytest.mark.parametrize(
    ("ranks", "change", "named"),
    [
        ({f: r for f, r in RANKS.items() if f != "task:qa"}, {}, ["no features task:qa"]),
        ({**RANKS, "task:new": 2}, {}, ["unexpected features task:new"]),
        ({**RANKS, "task:ner": 2, "task:qa": 2}, {}, ["task:ner 2 instead of 3", "task:qa 2 instead of 1"]),
        (dict(reversed(RANKS.items())), {}, ["order"]),
        (RANKS, {f"{Q}.A": None}, [f"no pools {Q}.A"]),
        (RANKS, {"lm_head.B": torch.zeros(8, 4)}, ["unexpected pools lm_head.B"]),
        (RANKS, {f"{Q}.A": torch.zeros(8, 4)}, [f"{Q}.A [8, 4] instead of [8, 16]"]),
    ],
)
def test_a_checkpoint_of_another_adapter_is_refused(ranks, change, named):
    adapter = adapt(build("t5"), targets="default")
    state = {**{key: pool.clone() + 1 for key, pool in adapter.state_dict().items()}, **change}
    state = {key: pool for key, pool in state.items() if pool is not None}
    before = [pool.clone() for pool in adapter.parameters()]
    with pytest.raises(UserError) as error:
        adapter.load_state_dict(state, ranks)
    for part in named:
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert all(map(torch.equal, adapter.parameters(), before))


def test_features_are_loaded_from_an_adapter_of_fewer_or_more():
    """With the rows of each that both have, wherever they stand in either."""
    fewer = {"language:am": 2, "task:ner": 3}
    for own, others in ((RANKS, fewer), (fewer, RANKS)):
        state = adapt(build("t5"), others, targets="default").state_dict()
        model = build("t5")
        adapter = inject(model, FeatureSpace(own), "default")
        untouched = [pool.clone() for pool in adapter.parameters()]
        adapter.load_features(state, others, fewer)
        for (key, pool), before in zip(adapter.state_dict().items(), untouched, strict=True):
            expected = pairs(own, before, before)
            expected.update({name: pairs(others, state[key], state[key])[name] for name in fewer})
            assert torch.equal(pool, torch.cat([expected[name][0] for name in own])), key


@pytest.mark.parametrize(
    ("ranks", "features", "named"),
    [
        (RANKS, ["task:ner", "task:new"], "no features task:new"),
        ({**RANKS, "task:ner": 2}, ["task:ner"], "task:ner 2 instead of 3"),
        ({**RANKS, "task:new": 2}, ["task:new"], "task:new 2 instead of 0"),
        ({"task:ner": 3}, ["task:ner"], f"another shape: {Q}.A [8, 16] instead of [3, 16]"),
    ],
)
def test_features_that_do_not_fit_are_refused(ranks, features, named):
    adapter = adapt(build("t5"), targets="default")
    state = {key: pool + 1 for key, pool in adapter.state_dict().items()}
    if ranks.keys() == {*RANKS, "task:new"}:
        state = {key: torch.cat([pool, pool[:2]]) for key, pool in state.items()}
    before = [pool.clone() for pool in adapter.parameters()]
    with pytest.raises(UserError) as error:
        adapter.load_features(state, ranks, features)
    assert named in str(error.value)
    assert all(map(torch.equal, adapter.parameters(), before))


def test_freezing_features_leaves_the_others_their_gradients():
    found = {}
    for frozen in ((), ("task:ner", "language:am")):
        model = build("t5")
        space = FeatureSpace(RANKS, frozen)
        adapter = inject(model, space)
        for pool in adapter.parameters():
            pool.data[:-1] += 0.1
        with adapter.route(space.rows(FEATURES)):
            model(**batch(model)).loss.backward()
        found[frozen] = [pool.grad for pool in adapter.parameters()]
    still = space.range_of(space.frozen)
    for free, own in zip(*found.values(), strict=True):
        assert free[still].any()
        assert not own[still].any()
        free[still] = 0
        torch.testing.assert_close(own, free)
