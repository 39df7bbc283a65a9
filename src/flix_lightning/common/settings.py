"""What a setting may be: a table of kinds of values, that the settings of a command are held against."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from flix_lightning.common.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Kind:
    """A kind of value: what it is in words, and whether plain data is one."""

    words: str
    accepts: Callable[[Any], bool]

    def require(self, key: str, value: Any) -> None:
        """Raise UserError unless the value of `key` is one."""
        if not self.accepts(value):
            shown = "null" if value is None else repr(value)
            raise UserError(f"{key} is {shown}; {self.words} is needed")


def integer(least: int, most: int = 10**9) -> Kind:
    """Whole numbers; no memory and no clock is made for more than `most`."""
    words = f"a whole number from {least} to {most:,}"
    return Kind(words, lambda value: type(value) is int and least <= value <= most)


def choice(*names: str) -> Kind:
    """Some texts and no other."""
    return Kind(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def nullable(kind: Kind) -> Kind:
    """That kind, or null."""
    return Kind(f"{kind.words}, or null,", lambda value: value is None or kind.accepts(value))


def list_of(kind: Kind, words: str) -> Kind:
    """Lists of that kind, empty ones too."""
    return Kind(words, lambda value: isinstance(value, list) and all(map(kind.accepts, value)))


ANY = Kind("anything", lambda value: True)  # what is looked at where it is used
POSITIVE = Kind("a number above 0", lambda value: type(value) in (int, float) and 0 < value < math.inf)
BOOLEAN = Kind("true or false", lambda value: type(value) is bool)
TEXT = Kind("a text", lambda value: isinstance(value, str) and bool(re.fullmatch(r"[^\0-\x1f\x7f]+", value)))
MAPPING = Kind("a mapping", lambda value: isinstance(value, Mapping | DictConfig))
# They become names of folders, and W&B's tags.
NAME = Kind(
    "a name of at most 64 letters, digits, spaces and .+-_",
    lambda value: isinstance(value, str) and bool(re.fullmatch(r"\w[\w .+-]{0,63}", value)),
)
PATH_OR_CALL = Kind(
    "a text, or a call with a _target_,", lambda value: MAPPING.accepts(value) or TEXT.accepts(value)
)


def check(cfg: DictConfig, table: Mapping[str, Kind]) -> None:
    """Hold a composed config against its table.

    Args:
        cfg: the config.
        table: "section.key", or "key" at the top, -> what it may be.

    Raises:
        UserError: a key that is not in the table, or a value that is not of its kind.
        MissingMandatoryValue: a value that must be given is not.
    """
    sections = dict.fromkeys(key.rpartition(".")[0] for key in table)
    for section in sections:
        part = OmegaConf.select(cfg, section) if section else cfg
        MAPPING.require(section, part)
        for key in (f"{section}.{name}".removeprefix(".") for name in part):
            if key not in table and key not in sections:
                raise UserError(f"{key}: no such key; {did_you_mean(key, table)}nothing would read it")
    for key, kind in table.items():
        value = OmegaConf.select(cfg, key, throw_on_missing=True)
        kind.require(
            key, OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        )
