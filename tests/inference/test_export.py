import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from omegaconf import OmegaConf
from peft import AutoPeftModelForSeq2SeqLM, PeftModel
from safetensors.torch import load_file
from tiny_models import FEATURES, RANKS, adapt, batch, build
from tiny_runs import checkpoint, do, rows
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import commands
from flix_lightning.adapter.features import FeatureSpace
from flix_lightning.adapter.projection import inject, load_adapter
from flix_lightning.adapter.reference import merge
from flix_lightning.inference.export import write_lora, write_merged
from flix_lightning.models.base import Base
from flix_lightning.runs import settings
from flix_lightning.runs.checkpoints import Checkpoint
from flix_lightning.runs.run import Run

TOGETHER = ("task:ner", "language:sw")  # as FEATURES[0]
DECODER = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip


def model_of(architecture):
    if architecture in ("t5", "gpt2", "llama"):
        return build(architecture, torch.float32)
    torch.manual_seed(0)
    if architecture == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**DECODER))
    else:
        model = Gemma3ForCausalLM(Gemma3TextConfig(**DECODER, sliding_window=4))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(params=["t5", "gpt2", "llama", "qwen3", "gemma3"])
def exported(request, tmp_path):
    """A base's folder, what was trained on it, and the logits of FEATURES."""
    model = model_of(request.param)
    model.save_pretrained(tmp_path / "base")
    encodes = model.config.is_encoder_decoder
    family = AutoModelForSeq2SeqLM if encodes else AutoModelForCausalLM
    adapter = adapt(model)
    inputs = batch(model)
    with torch.no_grad(), adapter.route(adapter.space.rows(FEATURES)):
        logits = model(**inputs).logits
    cfg = OmegaConf.create(
        {
            "model": {"pretrained": str(tmp_path / "base")},
            "flix": {"name": "FLix"},
            "mixture": {"name": "m"},
            "data": {"name": "d"},
            "seed": 0,
        }
    )
    state = {key: pool.clone() for key, pool in adapter.state_dict().items()}
    run = Run(cfg, "run")
    run.rows = []
    trained = run, Checkpoint(Path("last.ckpt"), RANKS, state, 5)

    class NoTokenizer:
        def save_pretrained(self, folder):
            pass

    base = Base(family.from_pretrained(tmp_path / "base").eval(), NoTokenizer(), encodes)
    return trained, base, lambda: family.from_pretrained(tmp_path / "base").eval(), family, inputs, logits


def differs(one, other):
    """The largest difference, relative to the largest logit."""
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("pad_rank", [None, 8])
def test_peft_reads_what_was_trained(exported, tmp_path, pad_rank):
    trained, base, fresh, _, inputs, logits = exported
    found = {}
    for name, features in (("right", TOGETHER), ("wrong", ("task:qa", "language:sw"))):
        write_lora(*trained, base, features, tmp_path / name, pad_rank)
        with torch.no_grad():
            found[name] = PeftModel.from_pretrained(fresh(), tmp_path / name)(**inputs).logits[0]
    seen = slice(None) if base.is_encoder_decoder else inputs["attention_mask"][0].bool()
    right, wrong = (differs(found[name][seen], logits[0][seen]) for name in ("right", "wrong"))
    assert right <= 1e-5
    assert wrong >= max(100 * right, 1e-3)
    config = json.loads((tmp_path / "right/adapter_config.json").read_text())
    # What servers of LoRA ask for: one rank and scale 1, no biases, no modules of their own, known names.
    assert config["r"] == config["lora_alpha"] == (pad_rank or 5)
    assert config["bias"] == "none"
    assert config["modules_to_save"] is None
    assert not config["use_dora"]
    assert not config["use_rslora"]
    for key, tensor in load_file(tmp_path / "right/adapter_model.safetensors").items():
        assert key.startswith("base_model.model.")
        assert key.endswith((".lora_A.weight", ".lora_B.weight"))
        assert config["r"] in tensor.shape
        assert any(f".{target}.lora_" in key for target in config["target_modules"])


#: vLLM's `max_lora_rank`, a server's own choice, and the projections that it has in each architecture.
SERVED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
SERVED = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize("exported", ["llama", "qwen3", "gemma3"], indirect=True)
def test_vllm_takes_it(exported, tmp_path):
    """By the rules of its loader, `PEFTHelper` and `LoRAModel`, whose package is for GPUs."""
    trained, base, fresh, _, _, _ = exported
    write_lora(*trained, base, TOGETHER, tmp_path / "out", 8)
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert type(config["r"]) is type(config["lora_alpha"]) is int
    assert config["r"] in SERVED_RANKS
    assert config["bias"] == "none"
    assert not any(config[key] for key in ("modules_to_save", "use_dora", "use_rslora"))
    scaling = config["lora_alpha"] / config["r"]
    projections, pairs = dict(fresh().named_modules()), {}
    for key, weight in load_file(tmp_path / "out/adapter_model.safetensors").items():
        name, side = re.fullmatch(r"base_model\.model\.(.+)\.(lora_[AB])\.weight", key).groups()
        assert name.rpartition(".")[2] in SERVED
        pairs.setdefault(name, {})[side] = weight
    assert pairs
    for name, pair in pairs.items():
        out, inner = projections[name].weight.shape
        assert pair["lora_A"].shape == (config["r"], inner)
        assert pair["lora_B"].shape == (out, config["r"])
        wanted = merge(fresh(), trained[1].pools, RANKS, TOGETHER).get_submodule(name).weight
        served = projections[name].weight + scaling * pair["lora_B"] @ pair["lora_A"]
        torch.testing.assert_close(served, wanted)


def test_a_merged_model_gives_what_merging_by_hand_gives(exported, tmp_path):
    trained, base, fresh, family, inputs, _ = exported
    write_merged(*trained, base, TOGETHER, tmp_path / "merged")
    merged = family.from_pretrained(tmp_path / "merged").eval()
    expected = merge(fresh(), trained[1].pools, RANKS, TOGETHER)
    with torch.no_grad():
        assert differs(merged(**inputs).logits, expected(**inputs).logits) <= 1e-5
    assert not [name for name, _ in merged.named_parameters() if "lora" in name or name.endswith(".A")]


def test_a_projections_last_name_that_means_others_is_not_used(tmp_path):
    model = model_of("llama")
    base = Base(model_of("llama"), None, False)
    adapter = inject(model, FeatureSpace(RANKS), r".*layers\.0\..*q_proj")
    run = Run(
        OmegaConf.create({"model": {"pretrained": "b"}, "flix": {"name": "F"}, "mixture": {"name": "m"}}
                         | {"data": {"name": "d"}, "seed": 0}), "run"
    )  # fmt: skip
    run.rows = []
    trained = run, Checkpoint(Path("last.ckpt"), RANKS, adapter.state_dict(), 5)
    write_lora(*trained, base, TOGETHER, tmp_path / "out", None)
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["target_modules"] == ["model.layers.0.self_attn.q_proj"]


# -- the command


def test_the_command_exports_what_the_task_was_tested_with(done, tmp_path, base):
    commands.run(tmp_path, "export.py", f"run={done}", "features=[task:ner,language:sw]", "out=there/ner-sw")
    out = tmp_path / "there/ner-sw"
    state = checkpoint(done, "best-ner")
    name = "encoder.block.0.layer.0.SelfAttention.q"
    weights = load_file(out / "adapter_model.safetensors")
    space = FeatureSpace(state["ranks"])
    index = space.rows([("task:ner", "language:sw")]).index[0]
    torch.testing.assert_close(
        weights[f"base_model.model.{name}.lora_A.weight"], state["adapter"][f"{name}.A"][index]
    )
    card = ModelCard.load(out / "README.md")
    assert card.data.base_model == str(base)
    (row,) = rows(done, split="test", active="all", task="ner", language="sw")
    assert f"ner/sw (seen): span_f1 {row['value']:.1f}, 4 examples" in card.text
    assert "task:ner (rank 4), language:sw (rank 2)" in card.text
    assert {path.name for path in tmp_path.iterdir()} == {"there", "stdout", "stderr"}
    assert AutoPeftModelForSeq2SeqLM.from_pretrained(out).base_model  # finds the base by itself


def test_every_task_with_every_language_at_once(done, tmp_path):
    ran = commands.run(tmp_path, "export.py", f"run={done}", "features=all", "out=all", "pad_rank=8")
    written = {path.name for path in (tmp_path / "all").iterdir()}
    assert written == {
        f"{task}-{code}" for task in ("semantic_parsing", "ner") for code in ("sw", "en", "yo")
    }
    assert len(ran.out.splitlines()) == 6
    assert json.loads((tmp_path / "all/ner-en/adapter_config.json").read_text())["r"] == 8
    card = (tmp_path / "all/ner-en/README.md").read_text()
    assert "never tested" in card


def test_all_features_are_read_again(done, base, tmp_path):
    commands.run(tmp_path, "export.py", f"run={done}", "format=flix", "checkpoint=best-ner", "out=all")
    state = checkpoint(done, "best-ner")
    model = AutoModelForSeq2SeqLM.from_pretrained(base)
    adapter = load_adapter(model, tmp_path / "all")
    assert adapter.space.ranks == state["ranks"]
    found = adapter.state_dict()
    assert found.keys() == state["adapter"].keys()
    assert all(torch.equal(found[key], pool) for key, pool in state["adapter"].items())
    card = ModelCard.load(tmp_path / "all/README.md")
    assert (card.data.base_model, card.data.library_name) == (str(base), "flix-lightning")
    assert "language:sw (rank 2)" in card.text


def test_a_merged_model_is_whole(done, tmp_path):
    commands.run(tmp_path, "export.py", f"run={done}", "features=[task:ner]", "out=merged", "merge=true")
    AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged")
    assert AutoTokenizer.from_pretrained(tmp_path / "merged")("a").input_ids


def test_a_base_that_a_call_made_is_made_again(done, base, tmp_path):
    run, made = tmp_path / "run", tmp_path / "made"
    shutil.copytree(done, run)
    shutil.copytree(base, made)
    (made / "README.md").write_text("---\nlicense: cc0-1.0\n---\nA base.\n")
    cfg = OmegaConf.load(run / "config.yaml")
    cfg.model.pretrained = {"_target_": "pathlib.Path", "_args_": [str(made)]}
    OmegaConf.save(cfg, run / "config.yaml")
    arguments = [f"run={run}", "features=[task:ner]", "out=out"]
    refused = commands.run(tmp_path, "export.py", *arguments, code=1)
    assert "_target_ is 'pathlib.Path'; one of flix_lightning." in refused.err
    commands.run(tmp_path, "export.py", *arguments, before=allow_paths)
    card = ModelCard.load(tmp_path / "out/README.md")
    assert (card.data.base_model, card.data.license) == ("made", "cc0-1.0")
    assert "licence: cc0-1.0" in card.text


def test_a_kind_that_follows_from_the_language_is_added(tiny, tmp_path):
    family = ["+attributes=family", "+mixture.ranks.family=2", "flix.controls=[]", "trainer.max_steps=1"]
    run = do([*tiny, *family], tmp_path)
    ran = commands.run(tmp_path, "export.py", f"run={run}", "features=[task:ner,language:sw]", "out=one")
    assert "FLix: task:ner, language:sw, family:Atlantic-Congo" in (tmp_path / "one/README.md").read_text()
    assert "trained with" not in ran.out + ran.err
    commands.run(tmp_path, "export.py", f"run={run}", "features=all", "out=all")
    pairs = ("sw-Atlantic-Congo", "yo-Atlantic-Congo", "en-Indo-European")
    expected = {f"{task}-{pair}" for task in ("ner", "semantic_parsing") for pair in pairs}
    assert {path.name for path in (tmp_path / "all").iterdir()} == expected
    ran = commands.run(tmp_path, "export.py", f"run={run}", "features=[task:ner]", "out=two")
    assert "trained with language, family too, and features names none of it" in ran.out + ran.err


def allow_paths():
    settings.MAKERS += ("pathlib.Path",)


@pytest.mark.parametrize(
    ("arguments", "said"),
    {
        "no run": (["run=nowhere"], ["run=nowhere", "results.jsonl"]),
        "no feature": (["features=[]"], ["features is []", "task:ner,language:sw"]),
        "no kind": (["features=[ner]"], ["features is ['ner']", "task:ner,language:sw"]),
        "never trained": (["features=[language:zu]"], ["language:zu", "trained are task:semantic_parsing"]),
        "misspelt": (["features=[task:ner,language:sv]"], ["language:sv", "did you mean 'language:sw'"]),
        "no checkpoint": (["checkpoint=best-qa"], ["no best-qa", "best-ner", "last"]),
        "too small": (["pad_rank=4"], ["pad_rank=4", "rank 6"]),
        "no rank": (["pad_rank=0"], ["pad_rank is 0", "whole number from 1"]),
        "both": (["merge=true", "pad_rank=8"], ["pad_rank", "merge=true"]),
        "no truth": (["merge=maybe"], ["merge is 'maybe'", "true or false"]),
        "features of all": (["format=flix"], ["format=flix writes all features", "leave features out"]),
        "no format": (["format=lora"], ["format is 'lora'", "peft, flix"]),
        "no features": (["features=null"], ["features has no value", "features=[task:NAME,language:CODE]"]),
        "no such key": (["padrank=8"], ["padrank", "did you mean 'pad_rank'", "export.py --cfg job"]),
        "there already": (["out=."], ["out=. is there already"]),
    }.values(),
    ids=lambda value: None,
)
def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(done, tmp_path, arguments, said):
    given = {"run": done, "features": "[task:ner,language:sw]", "out": "out"}
    given |= dict(one.split("=", 1) for one in arguments)
    ran = commands.run(tmp_path, "export.py", *(f"{key}={value}" for key, value in given.items()), code=1)
    (line,) = ran.err.splitlines()
    assert line.startswith("error: ")
    for text in said:
        assert text in line
    assert not (tmp_path / "out").exists()
