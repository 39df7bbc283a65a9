"""`features=` of an adapted model, and HF's Trainer with it."""

import copy

import pytest
import torch
from tiny_models import ARCHITECTURES, FEATURES, RANKS, adapt, batch, build
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

from flix_lightning.adapter import FeatureSpace, inject, load_adapter
from flix_lightning.common.errors import UserError


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_forward_and_generate_take_features(architecture):
    model = build(architecture)
    adapter = adapt(model)
    inputs = batch(model)
    labels = inputs.pop("labels", None)
    forward = inputs if labels is None else {**inputs, "labels": labels}
    with torch.no_grad(), adapter.route(adapter.space.rows(FEATURES)):
        logits, generated = model(**forward).logits, model.generate(**inputs, max_new_tokens=4)
    with torch.no_grad():
        assert torch.equal(model(**forward, features=FEATURES).logits, logits)
    assert torch.equal(model.generate(**inputs, max_new_tokens=4, features=FEATURES), generated)
    with pytest.raises(RuntimeError, match=r"without features= and outside `adapter\.route"):
        model(**forward)
    other = copy.deepcopy(model)  # has an adapter of its own
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.zero_()
        assert torch.equal(other(**forward, features=FEATURES).logits, logits)
        assert not torch.equal(model(**forward, features=FEATURES).logits, logits)


def test_a_classifier_takes_features():
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        num_labels=3,
    )
    model = BertForSequenceClassification(config).eval()
    adapter = adapt(model)
    ids = torch.arange(3, 15).view(4, 3)
    with torch.no_grad(), adapter.route(adapter.space.rows(FEATURES)):
        logits = model(ids).logits
    assert torch.equal(model(ids, features=FEATURES).logits, logits)
    with torch.no_grad():
        assert not torch.equal(model(ids, features=[()] * 4).logits, logits)


def examples(count=8):
    """Examples of two tasks in one language, whose targets the task decides."""
    return [
        {
            "input_ids": [3 + n, 4, 5, 6],
            "labels": [3 + n, 4, 20 + n % 2, 1],
            "features": ["task:ner" if n % 2 else "task:qa", "language:sw"],
            "note": "no argument of the model",
        }
        for n in range(count)
    ]


def collate(lines):
    assert "note" not in lines[0]
    batch = {key: torch.tensor([line[key] for line in lines]) for key in ("input_ids", "labels")}
    return batch | {"features": [line["features"] for line in lines]}


@pytest.mark.parametrize("architecture", ["t5", "llama"])
def test_the_trainer_of_transformers_needs_no_subclass(architecture, tmp_path):
    from datasets import Dataset

    model = build(architecture, torch.float32)
    before = copy.deepcopy(model.state_dict())
    adapter = inject(model, FeatureSpace(RANKS), "all-linear")
    options = {"max_steps": 30, "per_device_train_batch_size": 4, "learning_rate": 0.02, "logging_steps": 5}
    quiet = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "save_strategy": "no"}
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=tmp_path, **options, **quiet),
        train_dataset=Dataset.from_list(examples()),
        eval_dataset=Dataset.from_list(examples(4)),
        data_collator=collate,
    )
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < 0.97 * losses[0]
    assert trainer.evaluate()["eval_loss"] < losses[0]
    for name in ("language:am", "task:ner", "task:qa", "language:sw"):
        rows = adapter.space.range_of([name])
        moved = any(module.B[rows].any() for module in adapter.modules.values())
        assert moved is (name != "language:am"), name  # which no example has
    after = {name.replace(".base.", "."): value for name, value in model.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())

    trainer.save_model(tmp_path / "saved")
    other = build(architecture, torch.float32)
    loaded = load_adapter(other, tmp_path / "saved")
    state = adapter.state_dict()
    assert all(torch.equal(state[key], value) for key, value in loaded.state_dict().items())


class Packed(nn.Linear):
    """A projection whose weight is stored in another shape and type, as four-bit ones are."""

    def __init__(self, base):
        super().__init__(base.in_features, base.out_features, bias=False)
        scale = base.weight.abs().max() / 127
        packed = (base.weight / scale).round().to(torch.int8).view(-1, 1)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.scale = scale.detach()

    def unpacked(self):
        return (self.weight.view(self.out_features, -1) * self.scale).detach()

    def forward(self, x):
        return nn.functional.linear(x, self.unpacked())


def test_a_packed_weight_is_adapted():
    model, plain = build("llama", torch.float32), build("llama", torch.float32)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name != "lm_head":
            model.set_submodule(name, packed := Packed(module))
            plain.get_submodule(name).weight.data = packed.unpacked()
    assert adapt(model).modules.keys() == adapt(plain).modules.keys()
    inputs = batch(model)
    losses = [one(**inputs, features=FEATURES).logits.square().sum() for one in (model, plain)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses)
    own, expected = (
        [parameter.grad for parameter in one.parameters() if parameter.requires_grad]
        for one in (model, plain)
    )
    torch.testing.assert_close(own, expected)


WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}


def quantized(folder, **bits):
    """A model of bitsandbytes, where that is installed."""
    pytest.importorskip("bitsandbytes", reason="not in the environment of the tests, as it has 125 MB")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**WIDE, vocab_size=48, pad_token_id=0)).save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=BitsAndBytesConfig(**bits)).eval()


def test_a_four_bit_base_trains_as_its_plain_weights_do_also_after_an_evaluation(tmp_path):
    model = quantized(tmp_path, load_in_4bit=True)
    plain = LlamaForCausalLM.from_pretrained(tmp_path)
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            plain.get_submodule(name).weight.data = dequantize_4bit(module.weight, module.weight.quant_state)
    adapters = [adapt(one) for one in (model, plain)]
    assert adapters[0].modules.keys() == adapters[1].modules.keys()
    inputs = batch(model)
    assert model.generate(**inputs, features=FEATURES, max_new_tokens=2).shape == (4, 8)
    for one in (model, plain):
        one(**inputs, features=FEATURES).logits.square().mean().backward()
    for own, expected in zip(*(one.parameters() for one in adapters), strict=True):
        assert (own.grad - expected.grad).norm() <= 0.05 * expected.grad.norm()


def test_an_eight_bit_base_is_adapted(tmp_path):
    model = quantized(tmp_path, load_in_8bit=True)
    adapter = adapt(model)
    assert {name.rpartition(".")[2] for name in adapter.modules} >= {"q_proj", "o_proj", "up_proj"}
    model(**batch(model), features=FEATURES).logits.square().mean().backward()
    assert all(parameter.grad.any() for parameter in adapter.parameters())


def test_a_four_bit_base_that_lost_its_gradients_is_refused(tmp_path):
    model = quantized(tmp_path, load_in_4bit=True)
    module = model.model.layers[1].mlp.up_proj
    module.weight.quant_state.packing_format_for_cpu = True  # as its forward does on some CPUs
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj gives no gradient .* load the model again"):
        inject(model, FeatureSpace(RANKS), "all-linear")
