"""What a setting may be, and whether it decides the result: each setting is declared once, in a table.

A table maps "section.key" to a `Kind`, or to a `Setting` where the values are hashed too. A table may end in
"section.*": then keys of that section that are not declared go to another function as they are:

    SETTINGS = {
        "seed": Setting(integer(0)),
        "trainer.max_steps": Setting(integer(1)),
        "trainer.devices": Setting(ANY, decides=False),
        "optimizer.lazy": Setting(BOOLEAN, neutral=False),
        "data.root": Setting(PATH_OR_CALL, hashed_as="files"),
        "trainer.*": PassedOn("lightning.Trainer", harmless=("profiler",), reserved={"logger": "…"}),
    }
    check(cfg, SETTINGS)
    run_id = hash_of({"files": …, **deciding(cfg, SETTINGS)})
    Trainer(max_steps=cfg.trainer.max_steps, **passed_on(cfg, SETTINGS, "trainer"))
"""

import inspect
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from flix_lightning.common.errors import UserError, did_you_mean
from flix_lightning.common.names import as_text

_REQUIRED = object()


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
        words: what such a value is, for error messages.
        accepts: whether a value, as plain data, is one.
    """

    words: str
    accepts: Callable[[Any], bool]

    def require(self, key: str, value: Any) -> None:
        """Raise UserError unless the value of `key` is of this kind."""
        if not self.accepts(value):
            shown = "null" if value is None else repr(value)
            text = as_text(value)
            quotes = (
                f" (in quotes, as {text!r}: YAML reads it as {shown} otherwise)" if self.accepts(text) else ""
            )
            raise UserError(f"{key} is {shown}; {self.words} is needed{quotes}")


def integer(least: int, most: int = 10**9) -> Kind:
    """Whole numbers in [least, most]."""
    words = f"a whole number from {least} to {most:,}"
    return Kind(words, lambda value: type(value) is int and least <= value <= most)


def choice(*names: str) -> Kind:
    """One of some texts."""
    return Kind(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def nullable(kind: Kind) -> Kind:
    """The given kind, or null."""
    return Kind(f"{kind.words}, or null,", lambda value: value is None or kind.accepts(value))


def list_of(kind: Kind, words: str) -> Kind:
    """Lists of the given kind, empty lists too."""
    return Kind(words, lambda value: isinstance(value, list) and all(map(kind.accepts, value)))


ANY = Kind("anything", lambda value: True)  # checked where it is used
POSITIVE = Kind("a number above 0", lambda value: type(value) in (int, float) and 0 < value < math.inf)
BOOLEAN = Kind("true or false", lambda value: type(value) is bool)
# Half a surrogate pair comes from a path that is not UTF-8, and could not be written to any file of the run.
TEXT = Kind(
    "a text (UTF-8)",
    lambda value: isinstance(value, str) and bool(re.fullmatch(r"[^\0-\x1f\x7f\ud800-\udfff]+", value)),
)
MAPPING = Kind("a mapping", lambda value: isinstance(value, Mapping | DictConfig))
# Names become folders and W&B tags, which have at most 64 characters.
NAME = Kind(
    "a name of at most 64 letters, digits, spaces and .+-_",
    lambda value: isinstance(value, str) and bool(re.fullmatch(r"\w[\w .+-]{0,63}", value)),
)
PATH_OR_CALL = Kind(
    "a text, or a call with a _target_,", lambda value: MAPPING.accepts(value) or TEXT.accepts(value)
)


@dataclass(frozen=True)
class Setting:
    """One setting of a run.

    Attributes:
        kind: what it may be.
        decides: whether it decides the result. Only such settings are part of the run's hash.
        hashed_as: the part of the hash that already covers it, for example "files" for a path to data.
        neutral: for a setting that was added after the first runs: the value that means what those runs did.
            With that value, the setting is left out of the hash, so that the ids of older runs stay.
    """

    kind: Kind
    decides: bool = True
    hashed_as: str | None = None
    neutral: Any = _REQUIRED


@dataclass(frozen=True)
class PassedOn:
    """The rest of a section, whose keys a function takes as keyword arguments.

    Attributes:
        function: its dotted name. It is imported only if there are such keys.
        harmless: arguments that leave the result as it is, so that they are not part of the hash.
        reserved: arguments that the section may not give -> what to do instead.
    """

    function: str
    harmless: tuple[str, ...] = ()
    reserved: Mapping[str, str] = field(default_factory=dict)

    def require(self, key: str, table: Mapping[str, Any]) -> None:
        """Raise UserError unless `key`, which `table` lacks, names an argument of the function."""
        section, _, name = key.rpartition(".")
        if name in self.reserved:
            raise UserError(f"{key} cannot be set; {self.reserved[name]}")
        arguments = {f"{section}.{one}" for one in inspect.signature(get_object(self.function)).parameters}
        if key not in arguments:
            known = [*table, *sorted(arguments - {f"{section}.{one}" for one in self.reserved})]
            raise UserError(
                f"{key}: no such key; {did_you_mean(key, known)}{self.function} has no such argument either"
            )


Table = Mapping[str, Kind | Setting | PassedOn]


def check_keys(
    place: str, values: Mapping[str, Any], kinds: Mapping[str, Kind], also: Collection[str] = ()
) -> None:
    """Check the mapping at `place` in a config; a key that it lacks counts as null.

    Raises UserError for a key that is neither in `kinds` nor in `also`, or a value that is not of its kind. A
    key in `also` may have any value.
    """
    if unknown := [key for key in values if key not in kinds and key not in also]:
        hint = did_you_mean(unknown[0], kinds)
        raise UserError(f"{place}.{unknown[0]}: no such key; {hint}keys are {', '.join(sorted(kinds))}")
    for key, kind in kinds.items():
        kind.require(f"{place}.{key}", values.get(key))


def check(cfg: DictConfig, table: Table) -> None:
    """Check a composed config against its table.

    Raises:
        UserError: a key that is not in the table, or a value that is not of its kind.
        MissingMandatoryValue: a value that must be given is missing.
    """
    sections = dict.fromkeys(key.rpartition(".")[0] for key in table)
    for section in sections:
        MAPPING.require(section, OmegaConf.select(cfg, section) if section else cfg)
    for key in _undeclared(cfg, table):
        rest = table.get(f"{key.rpartition('.')[0]}.*")
        if rest is None:
            raise UserError(f"{key}: no such key; {did_you_mean(key, table)}nothing would read it")
        rest.require(key, table)
    for key, declared in table.items():
        if not isinstance(declared, PassedOn):
            kind = declared.kind if isinstance(declared, Setting) else declared
            kind.require(key, plain(OmegaConf.select(cfg, key, throw_on_missing=True)))


def decides(key: str, table: Table) -> bool:
    """Whether a key decides the result, by the declared setting that it is or is a part of."""
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        if setting := table.get(".".join(parts[:end])):
            return setting.decides
    rest = table.get(f"{parts[0]}.*")
    return rest is not None and len(parts) > 1 and parts[1] not in rest.harmless


def deciding(cfg: DictConfig, table: Table) -> dict[str, Any]:
    """Collect the settings that decide the result and that nothing else of the hash covers.

    They are section -> key -> value as plain data; a key that is in no section stands at the top.
    """
    result: dict[str, Any] = {}
    for key in [*table, *_undeclared(cfg, table)]:
        section, _, name = key.rpartition(".")
        setting = table.get(key) or Setting(ANY, decides=decides(key, table))
        if not isinstance(setting, Setting) or not setting.decides or setting.hashed_as:
            continue
        value = plain(OmegaConf.select(cfg, key))
        if value != setting.neutral:
            (result.setdefault(section, {}) if section else result)[name] = value
    return result


def passed_on(cfg: DictConfig, table: Table, section: str) -> dict[str, Any]:
    """Return the undeclared keys of a section as keyword arguments; a `_target_` is called.

    Raises:
        UserError: the command line does not name the call: the config may come with someone else's run.
    """
    result = {}
    for key in _undeclared(cfg, table):
        at, _, name = key.rpartition(".")
        if at == section:
            value = OmegaConf.select(cfg, key)
            for target in _targets(plain(value)):
                if not _on_command_line(key, target):
                    raise UserError(
                        f"{key} calls {target}; a call of your own is given on the command line only"
                    )
            result[name] = instantiate(value, _convert_="all") if OmegaConf.is_config(value) else value
    return result


def overrides() -> dict[str, str]:
    """Return the keys that the command line or its sweep gives, each with its text."""
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return dict(one.lstrip("+").partition("=")[::2] for one in given)


def plain(node: Any) -> Any:
    """Turn a part of a config into plain data, with its interpolations resolved."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _undeclared(cfg: DictConfig, table: Table) -> list[str]:
    """Keys in the table's sections that are neither declared nor sections."""
    sections = dict.fromkeys(key.rpartition(".")[0] for key in table)
    parts = {section: OmegaConf.select(cfg, section) if section else cfg for section in sections}
    keys = [f"{section}.{name}".removeprefix(".") for section, part in parts.items() for name in part]
    return [key for key in keys if key not in table and key not in sections]


def _targets(value: Any) -> Iterator[str]:
    """Every `_target_` in plain data."""
    if isinstance(value, list):
        for one in value:
            yield from _targets(one)
    elif isinstance(value, dict):
        yield from [str(value["_target_"])] if "_target_" in value else []
        yield from _targets(list(value.values()))


def _on_command_line(key: str, target: str) -> bool:
    return any(target in value for name, value in overrides().items() if f"{name}.".startswith(f"{key}."))
