import re
from pathlib import Path

import hydra
import pytest
import yaml
from families import FAMILIES
from swept import swept
from tiny_runs import config, do, rows

from commands import REPOSITORY
from flix_lightning.cldr import benchmark
from flix_lightning.models import base as models
from flix_lightning.runs.run import Run

CONF = REPOSITORY / "conf"
CHOICES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.glob("*/[!_]*.yaml"))
SWEEPS = sorted(path.stem for path in (REPOSITORY / "sweeps").glob("*.yaml"))


def chosen(choices):
    """As overrides, with what a choice cannot do without; the group logger takes a list."""
    named = [f"{group}=[{name}]" if group == "logger" else f"{group}={name}" for group, name in choices]
    return [*named, *(more for one in choices for more in NEEDED.get("/".join(one), []))]


NEEDED = {"mixture/single_dataset": ["mixture.task=ner", "mixture.language=sw"]}


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes(choice):
    group, name = choice.split("/")
    found = config(chosen([(group, name)]))
    said = yaml.safe_load((CONF / f"{choice}.yaml").read_text())
    assert set(said) - {"defaults"} <= set(found[group])


@pytest.mark.parametrize("launcher", sorted(path.stem for path in CONF.glob("hydra/launcher/*.yaml")))
def test_every_launcher_composes(launcher):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", [f"hydra/launcher={launcher}"], return_hydra_config=True)
    found = cfg.hydra.launcher
    said = yaml.safe_load((CONF / f"hydra/launcher/{launcher}.yaml").read_text())
    del said["defaults"]
    assert {key: found[key] for key in said} == said
    assert hydra.utils.get_class(found._target_)


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_sweep_composes(sweep):
    configs = swept(sweep)
    assert configs
    assert len({str(one) for one in configs}) == len(configs)


@pytest.mark.parametrize("choice", CHOICES)
def test_the_table_of_contents_lists_every_choice(choice):
    group, name = choice.split("/")
    (line,) = re.findall(rf"^  - {group}: .*$", (CONF / "train.yaml").read_text(), re.MULTILINE)
    assert name in re.split(r"[^\w.-]+", line.partition("#")[2])


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

#: Every choice of every group, in as few runs.
TRAINED = {
    "FLix": "model/cldr flix/flix data/cldr mixture/joint trainer/cpu logger/csv logger/wandb",
    "the other mixture": "model/hf flix/compute_matched data/cldr mixture/semantic_parsing_holdout",
    "a folder": "flix/param_matched data/xtreme_up",
    "one task": "data/cldr mixture/multilingual_qa_in_lang",
    "5 languages": "data/cldr mixture/joint_5",
    "10 languages": "data/cldr mixture/joint_10",
    "20 languages": "data/cldr mixture/joint_20",
    "one dataset": "flix/flix_shared data/cldr mixture/single_dataset",
    **{f"recipe {name}": f"model/{name} data/xtreme_up trainer/gpu" for name in RECIPES},
}
#: Where several processes do so: test_experiment.py.
TRAINED_ELSEWHERE = ["trainer/ddp", "trainer/fsdp"]
#: Choices that are like one of these but for a list of languages or tasks.
PLANNED = [
    f"mixture/{name}"
    for name in (
        "lite",
        "multilingual_ner",
        "multilingual_qa_cross_lang",
        "multilingual_semantic_parsing",
        "multitask_bn",
        "multitask_sw",
    )
]


def test_every_choice_is_trained_or_planned_below():
    trained = " ".join(TRAINED.values()).split()
    assert sorted({*trained, *TRAINED_ELSEWHERE, *PLANNED}) == CHOICES


@pytest.mark.parametrize("choice", PLANNED)
def test_planned(choice, short, tmp_path):
    cfg = config([*chosen([choice.split("/")]), *short, f"output={tmp_path}"])
    found = Run.resolve(cfg)
    trained = {(entry.task, code) for entry in cfg.mixture.train for code in entry.languages}
    there = {(one.task, one.language) for one in found.mixture.train}
    assert there == {one for one in trained if one in benchmark.datasets()}
    assert not found.path.exists()


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Overrides that cut a run to two steps of the benchmark's first lines."""
    folder = tmp_path_factory.mktemp("benchmark")
    return [
        f"data.root.root={folder}",
        *(f"data.root.{split}=2" for split in ("train", "validation", "test")),
        "data.max_input_length=32",
        "evaluation.validation_cap=1",
        "evaluation.test_cap=1",
    ]


@pytest.mark.parametrize("run", TRAINED)
def test_two_steps(run, short, base, data, tmp_path, monkeypatch):
    monkeypatch.setitem(models.BUILT_IN, "cldr-base", Path(base))
    choices = [tuple(choice.split("/")) for choice in TRAINED[run].split()]
    loggers = [name for group, name in choices if group == "logger"] or ["csv"]
    own = {
        "model/hf": [f"model.pretrained={base}"],
        "data/cldr": short,
        "data/xtreme_up": [f"data.root={data}", "data.max_input_length=48", *SMALL],
        "trainer/gpu": ["trainer.accelerator=cpu", "trainer.activation_checkpointing=true"],
    }
    for recipe, family in RECIPES.items():
        if f"model/{recipe}" in TRAINED[run]:
            own[f"model/{recipe}"] = [f"model.pretrained={FAMILIES[family].save(tmp_path / family)}"]
    overrides = [
        *chosen([choice for choice in choices if choice[0] != "logger"]),
        f"logger=[{','.join(loggers)}]",
        *(override for choice in choices for override in own.get("/".join(choice), [])),
        "data.max_target_length=2",
        "trainer.max_steps=2",
        "trainer.batch_size=4",
        "trainer.micro_batch_size=2",
        f"output={tmp_path}",
    ]
    folder = do(overrides, tmp_path)
    assert {row["step"] for row in rows(folder, split="validation")} == {2}
    assert rows(folder, split="test", active="all")


SMALL = [
    "mixture.train=[{task:ner,languages:[sw]}]",
    "mixture.evaluate=[{task:ner,languages:[sw]}]",
    "trainer.precision=bf16-mixed",
    "evaluation.selection=average",
]


@pytest.mark.parametrize(
    "choice", [one for one in CHOICES if one.startswith("mixture/") and one != "mixture/lite"]
)
def test_the_benchmark_holds_what_a_mixture_names(choice):
    """But for what CLDR lacks."""
    mixture = config(chosen([choice.split("/")])).mixture
    for entry in [*mixture.train, *mixture.evaluate]:
        for code in entry.languages:
            missing = benchmark.missing_languages(entry.task)
            assert (entry.task, code) in benchmark.datasets() or code in missing
