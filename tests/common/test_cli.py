"""Options stand anywhere, a conf folder of one's own works everywhere, and --help explains every key."""

import random
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

import commands
from flix_lightning.common import cli
from flix_lightning.common.errors import UserError
from flix_lightning.common.help import entries
from flix_lightning.common.scripts import name_commands

OVERRIDES = ["seed=1,2", "+trainer.x=1", "~flix.dropout"]
OPTIONS = [["-m"], ["--cfg", "job"], ["--config-dir", "mine"], ["--resolve"]]


@pytest.mark.parametrize("seed", range(20))
def test_options_stand_anywhere(seed):
    parts = [*([one] for one in OVERRIDES), *OPTIONS]
    random.Random(seed).shuffle(parts)
    found = cli.parse_options([word for part in parts for word in part])
    assert sorted(found.overrides) == sorted(OVERRIDES)
    assert (found.multirun, found.cfg, found.config_dir, found.resolve) == (True, "job", "mine", True)
    assert found.ordered[-3:] == found.overrides
    assert vars(cli.parse_options(found.ordered)) == vars(found)


def test_the_home_folder_stands_at_the_start_of_a_value(monkeypatch):
    given = ["output=~/a", "+data.root=~", "~flix.dropout", "run=a~/b", "input=~b/c"]
    monkeypatch.setattr("sys.argv", ["train.py", *given])
    home = str(Path.home())
    assert cli.arguments() == [f"output={home}/a", f"+data.root={home}", *given[2:]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["seed=1", "--multirn"], ["--multirn", "'--multirun'"]),
        (["--cfg", "jobs", "seed=1"], ["--cfg", "'jobs'", "'job'"]),
        (["seed=1", "--config-dir"], ["--config-dir", "expected one argument"]),
        (["-multirun", "seed=1"], ["--multirun"]),
    ],
)
def test_a_wrong_option_is_one_line(arguments, words):
    with pytest.raises(UserError) as caught:
        cli.parse_options(arguments)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


@pytest.fixture
def mine(tmp_path):
    """A folder of configs: a mixture and a sweep."""
    (tmp_path / "mixture").mkdir()
    (tmp_path / "mixture/mine.yaml").write_text(
        "defaults: [_base, _self_]\nname: mine\ntrain: &all [{task: ner, languages: [sw]}]\nevaluate: *all\n"
    )
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps/mine.yaml").write_text(
        "# @package _global_\nhydra: {sweeper: {params: {mixture: 'mine,joint_5', seed: 3}}}\n"
    )
    return tmp_path


def test_a_folder_of_configs_of_ones_own(mine):
    found = cli.sweep_configs(["+sweeps=mine", "--config-dir", str(mine), "seed=4,5"])
    assert [(cfg.mixture.name, cfg.seed) for cfg in found] == [
        (name, seed) for name in ("mine", "joint_5") for seed in (4, 5)
    ]
    assert found[0].mixture.report == found[2].mixture.report


def test_it_works_in_train_and_report(mine, tmp_path):
    shown = commands.run(tmp_path, "train.py", "mixture=mine", "--config-dir", mine, "--cfg", "job", "seed=7")
    assert yaml.safe_load(shown.out)["mixture"]["name"] == "mine"
    told = commands.run(tmp_path, "report.py", "--config-dir", "nowhere", "+sweeps=mine", code=1)
    assert told.err == "error: --config-dir nowhere: no such folder\n"


#: The groups that conf/train.yaml chooses from; the others are added to it, or are read by name.
GROUPS = sorted(
    {one.name for one in cli.CONF.iterdir() if one.is_dir()} - {*"hydra debug task attributes".split()}
)
CHOICES = sorted(f"{group}/{file.stem}" for group in GROUPS for file in (cli.CONF / group).glob("*.yaml"))
COMMANDS = ["train", "evaluate", "predict", "export"]


def leaves(cfg, prefix=""):
    """Every key with a value, with dots; lists count as values."""
    for key in cfg:
        part = cfg._get_node(key)
        if isinstance(part, DictConfig) and part:
            yield from leaves(part, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@pytest.mark.parametrize("choice", CHOICES)
def test_every_key_of_a_choice_has_its_value_and_comment(choice):
    group, _, name = choice.partition("/")
    (cfg,) = cli.sweep_configs([f"{group}=[{name}]" if group == "logger" else f"{group}={name}"])
    explained = {one.key: one for one in entries([cli.CONF], choice)}
    for key in leaves(cfg[group]):
        one = explained.get(key) or explained[key.rpartition(".")[0]]  # {task: 4} is one entry
        assert one.comment, f"{choice} says nothing of {key}"
        if one.key == key and one.value != "[…]" and "${" not in one.value:
            written = OmegaConf.create(f"value: {one.value}")
            assert OmegaConf.select(written, "value") == OmegaConf.select(cfg[group], key)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_key(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    cfg = cli._compose(cli.parse_options([]), command)
    own = cfg if command != "train" else {key: cfg[key] for key in cfg if key not in GROUPS}
    keys = list(leaves(OmegaConf.create(own))) + (GROUPS if command == "train" else [])
    cli.print_help(command, cli.parse_options(["--help"]))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 50
    for key in keys:
        *_, line = (line for line in lines if line.startswith(f"{key}="))
        assert line.strip().partition("  ")[2], f"--help says nothing of {key}"


@pytest.mark.parametrize(
    ("text", "installed"),
    [
        ("`python train.py --help` lists the keys", "`flix-train --help` lists the keys"),
        ("python report.py, .venv/bin/python plan.py", "flix-report, flix-plan"),
        (
            "`torchrun --nproc-per-node=2 train.py -m …`",
            "`torchrun --nproc-per-node=2 --no-python flix-train -m …`",
        ),
        ("srun --nodes=1 python predict.py", "srun --nodes=1 flix-predict"),
    ],
)
def test_messages_name_the_commands_that_there_are(text, installed, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/repository/train.py", "--help"])
    assert name_commands(text) == text
    monkeypatch.setattr("sys.argv", ["/venv/bin/flix-train", "--help"])
    assert name_commands(text) == installed


def test_help_of_a_group_and_of_plain_commands(tmp_path):
    shown = commands.run(tmp_path, "train.py", "--help", "trainer=gpu")
    assert "trainer.batch_size=512" in shown.out
    assert "trainer.compile=false" in shown.out
    (tmp_path / "mine/trainer").mkdir(parents=True)
    (tmp_path / "mine/trainer/empty.yaml").write_text("# nothing yet\n")
    shown = commands.run(tmp_path, "train.py", "--config-dir", "mine", "--help", "trainer=empty")
    assert "--cfg job" in shown.out
    for script in ("report.py", "plan.py", "dashboard.py"):
        assert f"python {script}" in commands.run(tmp_path, script, "--help").out
