"""Every shipped config composes, and every choice of a group is trained or resolved."""

import re
from pathlib import Path

import hydra
import pytest
import yaml
from families import FAMILIES
from omegaconf import OmegaConf
from swept import swept
from tiny_runs import config, do, rows

from commands import REPOSITORY
from flix_lightning.cldr import benchmark
from flix_lightning.models import base as models
from flix_lightning.runs.run import Run

CONF = REPOSITORY / "conf"
GROUPS = ("model", "flix", "data", "mixture", "trainer", "logger")
CHOICES = sorted(f"{group}/{path.stem}" for group in GROUPS for path in (CONF / group).glob("[!_]*.yaml"))
SWEEPS = sorted(path.stem for path in (REPOSITORY / "sweeps").glob("*.yaml"))
SINGLE = ["mixture.task=ner", "mixture.language=sw"]


@pytest.mark.parametrize("group", GROUPS)
def test_the_table_of_contents_lists_every_choice(group):
    (line,) = re.findall(rf"^  - {group}: .*$", (CONF / "train.yaml").read_text(), re.MULTILINE)
    listed = re.split(r"[^\w.-]+", line.partition("#")[2])
    assert {choice.partition("/")[2] for choice in CHOICES if choice.startswith(f"{group}/")} <= {*listed}


@pytest.mark.parametrize("launcher", sorted(path.stem for path in CONF.glob("hydra/launcher/*.yaml")))
def test_every_launcher_composes(launcher):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", [f"hydra/launcher={launcher}"], return_hydra_config=True)
    found = OmegaConf.to_container(cfg.hydra.launcher)
    written = yaml.safe_load((CONF / f"hydra/launcher/{launcher}.yaml").read_text())
    del written["defaults"]
    assert {key: found[key] for key in written} == written
    assert hydra.utils.get_class(found["_target_"])


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_sweep_composes(sweep):
    configs = swept(sweep)
    assert configs
    assert len({str(one) for one in configs}) == len(configs)


#: Recipes of base models, and a random model of the same family that stands in for each.
RECIPES = {
    "mt5-small": "mt5",
    "mt5-base": "mt5",
    "mt5-xl": "mt5",
    "byt5-base": "byt5",
    "qwen3-0.6b": "qwen3",
    "gemma-3-4b": "gemma3 with vision",
    "gemma3-270m": "gemma3",
}
#: Choices that are trained together.
TRAINED = [
    "model/cldr flix/flix data/cldr mixture/joint trainer/cpu logger/csv logger/wandb",
    "model/hf flix/compute_matched data/cldr mixture/semantic_parsing_holdout",
    "flix/param_matched data/xtreme_up",
    "flix/flix_shared data/cldr_v1 mixture/single_dataset",
    *(f"model/{name} data/xtreme_up trainer/gpu" for name in RECIPES),
]
#: test_train.py trains the first two, in several processes; test_your_own.py the third.
TRAINED_ELSEWHERE = ["trainer/ddp", "trainer/fsdp", "data/hub"]
MIXTURES = [choice.partition("/")[2] for choice in CHOICES if choice.startswith("mixture/")]


def test_every_choice_is_trained():
    trained = " ".join(TRAINED).split()
    mixtures = [f"mixture/{name}" for name in MIXTURES]
    assert sorted({*trained, *TRAINED_ELSEWHERE, *mixtures}) == CHOICES


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Overrides that cut a run to a few lines of the benchmark."""
    folder = tmp_path_factory.mktemp("benchmark")
    return [
        f"data.root.root={folder}",
        *(f"data.root.{split}=2" for split in ("train", "validation", "test")),
        "data.max_input_length=32",
    ]


@pytest.mark.parametrize("name", MIXTURES)
def test_every_mixture_resolves_to_the_data_that_is_there(name, short, tmp_path):
    needed = SINGLE if name == "single_dataset" else []
    cfg = config([f"mixture={name}", *needed, *short, f"output={tmp_path}"])
    run = Run.resolve(cfg)
    for part in ("train", "evaluate"):
        # The config of `all` has its lists by now.
        named = {(entry.task, code) for entry in cfg.mixture[part] for code in entry.languages}
        there = {(one.task, one.language) for one in getattr(run.mixture, part)}
        assert there == named & {*benchmark.datasets()}
        unknown = [one for one in named - there if one[1] not in benchmark.missing_languages(one[0])]
        assert not unknown or name in ("lite", "lite_short")  # which names languages of other sources
    assert not run.path.exists()


@pytest.mark.parametrize("choices", TRAINED)
def test_the_smoke_run(choices, short, base, data, tmp_path, monkeypatch):
    monkeypatch.setitem(models.BUILT_IN, "cldr-base", Path(base))
    chosen = choices.split()
    loggers = [choice.partition("/")[2] for choice in chosen if choice.startswith("logger/")] or ["csv"]
    own = {
        "model/hf": [f"model.pretrained={base}"],
        "data/cldr": short,
        "data/cldr_v1": short,
        "data/xtreme_up": [
            f"data.root={data}",
            "data.max_input_length=48",
            "mixture.train=[{task:ner,languages:[sw]}]",
            "mixture.evaluate=[{task:ner,languages:[sw]}]",
            "evaluation.selection=average",
        ],
        "mixture/single_dataset": SINGLE,
        "trainer/gpu": [
            "trainer.accelerator=cpu",
            "trainer.activation_checkpointing=true",
            "trainer.micro_batch_size=8",
        ],
    }
    for recipe, family in RECIPES.items():
        if f"model/{recipe}" in chosen:
            own[f"model/{recipe}"] = [f"model.pretrained={FAMILIES[family].save(tmp_path / family)}"]
    overrides = [
        "+debug=smoke",
        *(choice.replace("/", "=") for choice in chosen if not choice.startswith("logger/")),
        f"logger=[{','.join(loggers)}]",
        *(override for choice in chosen for override in own.get(choice, [])),
        "data.max_target_length=2",
    ]
    folder = do(overrides, tmp_path)
    assert {row["step"] for row in rows(folder, split="validation")} == {2, 4}
    assert {row["active"] for row in rows(folder, split="test")} == {"all"}
    for split in ("validation", "test"):
        assert {row["n"] for row in rows(folder, split=split)} == {1}
