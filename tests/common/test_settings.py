"""A setting is declared once: what it may be, and whether it decides the result."""

import re

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from flix_lightning.common.errors import UserError
from flix_lightning.common.settings import (
    ANY,
    BOOLEAN,
    NAME,
    PATH_OR_CALL,
    POSITIVE,
    TEXT,
    PassedOn,
    Setting,
    check,
    choice,
    deciding,
    integer,
    list_of,
    nullable,
    passed_on,
)

TABLE = {
    "seed": Setting(integer(0)),
    "output": Setting(TEXT, decides=False),
    "optimizer.rate": Setting(POSITIVE),
    "optimizer.lazy": Setting(BOOLEAN, neutral=False),
    "data.root": Setting(PATH_OR_CALL, hashed_as="files"),
    "trainer.max_steps": Setting(integer(1)),
    "trainer.devices": Setting(ANY, decides=False),
    "trainer.*": PassedOn("lightning.Trainer", ("profiler",), {"logger": "use logger=[csv]"}),
}
VALUES = {
    "seed": 1,
    "output": "outputs",
    "optimizer": {"rate": 0.1, "lazy": False},
    "data": {"root": "folder"},
    "trainer": {"max_steps": 5, "devices": 2},
}
HASHED = {"seed": 1, "optimizer": {"rate": 0.1}, "trainer": {"max_steps": 5}}


def config(**trainer):
    return OmegaConf.merge(VALUES, {"trainer": trainer})


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (integer(1, 9), [1, 9], [0, 10, 1.0, True, "1", None]),
        (POSITIVE, [1, 0.5], [0, -1, float("nan"), float("inf"), True, "1"]),
        (BOOLEAN, [True, False], [0, 1, "true", None]),
        (TEXT, ["a", "a b", "ä"], ["", "a\nb", "\0", 5, None]),
        (NAME, ["a", "a.b+c-d e"], ["", "../a", ".a", "a/b", "a" * 65]),
        (choice("a", "b"), ["a"], ["c", None, ["a"]]),
        (nullable(integer(1)), [None, 1], [0]),
        (list_of(integer(1), "a list"), [[], [1, 2]], [1, [0]]),
        (PATH_OR_CALL, ["a", {"_target_": "f"}], [None, ["a"]]),
    ],
)
def test_kinds(kind, good, bad):
    for value in good:
        kind.require("key", value)
    for value in bad:
        with pytest.raises(UserError, match=r"^key is .*needed"):
            kind.require("key", value)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (NAME, False, "'no'"),
        (NAME, True, "'yes'"),
        (NAME, 2020, "'2020'"),
        (list_of(TEXT, "a list"), ["a", False], "['a', 'no']"),
    ],
)
def test_a_text_that_yaml_reads_as_another_value_needs_quotes(kind, value, text):
    with pytest.raises(
        UserError, match=re.escape(f"in quotes, as {text}: YAML reads it as {value!r} otherwise")
    ):
        kind.require("key", value)


def test_only_what_decides_the_result_is_hashed():
    assert deciding(OmegaConf.create(VALUES), TABLE) == HASHED


@pytest.mark.parametrize(
    ("key", "value", "changes"),
    [
        ("seed", 2, True),
        ("output", "elsewhere", False),
        ("optimizer.lazy", True, True),
        ("data.root", "moved", False),
        ("trainer.devices", 1, False),
        ("trainer.limit_val_batches", 2, True),
        ("trainer.profiler", "simple", False),
    ],
)
def test_a_setting_enters_the_hash_if_it_decides(key, value, changes):
    cfg = OmegaConf.create(VALUES)
    OmegaConf.update(cfg, key, value)
    check(cfg, TABLE)
    assert (deciding(cfg, TABLE) != HASHED) == changes


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sede": 1}, ["sede: no such key", "'seed'"]),
        ({"optimizer": {"rates": 1}}, ["optimizer.rates", "'optimizer.rate'"]),
        ({"optimizer": None}, ["optimizer is null", "a mapping"]),
        ({"seed": "x"}, ["seed is 'x'", "whole number from 0"]),
        ({"trainer": {"max_step": 1}}, ["trainer.max_step", "'trainer.max_steps'"]),
        (
            {"trainer": {"determinstic": True}},
            ["trainer.determinstic", "'trainer.deterministic'"],
        ),
        ({"trainer": {"logger": True}}, ["trainer.logger", "logger=[csv]"]),
    ],
)
def test_a_wrong_key_or_value_is_named(changed, words):
    with pytest.raises(UserError) as caught:
        check(OmegaConf.merge(VALUES, changed), TABLE)
    assert all(word in str(caught.value) for word in words), caught.value


def test_undeclared_keys_go_to_the_function():
    cfg = config(deterministic=True, limit_val_batches=0.5)
    check(cfg, TABLE)
    assert passed_on(cfg, TABLE, "trainer") == {"deterministic": True, "limit_val_batches": 0.5}


TIMER = "lightning.pytorch.callbacks.Timer"


@pytest.fixture
def overrides():
    """Set the overrides of the running command."""

    def set_to(*overrides):
        HydraConfig.instance().cfg = OmegaConf.create({"hydra": {"overrides": {"task": list(overrides)}}})

    yield set_to
    HydraConfig.instance().cfg = None


@pytest.mark.parametrize(
    "override",
    [f"+trainer.callbacks=[{{_target_:{TIMER}}}]", f"+trainer.callbacks.timer._target_={TIMER}"],
)
def test_a_call_on_the_command_line_is_made(overrides, override):
    overrides("seed=1", override)
    (timer,) = passed_on(config(callbacks=[{"_target_": TIMER}]), TABLE, "trainer")["callbacks"]
    assert type(timer).__name__ == "Timer"


@pytest.mark.parametrize("given", [[], ["trainer=theirs"], ["+trainer.callbacks=[]"], [f"tables=[{TIMER}]"]])
def test_a_call_from_anywhere_else_is_refused(overrides, given):
    overrides(*given)
    with pytest.raises(UserError, match=rf"trainer\.callbacks calls {TIMER}.*command line"):
        passed_on(config(callbacks={"timer": {"_target_": TIMER}}), TABLE, "trainer")


def test_no_call_is_made_without_a_command():
    with pytest.raises(UserError, match="command line"):
        passed_on(config(plugins={"_target_": TIMER}), TABLE, "trainer")
