"""Attributes that follow from another, as the family from the language, for all datasets of a mixture."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flix_lightning.common.errors import UserError, did_you_mean, list_names
from flix_lightning.common.names import check_name, text_keys

_FORM = "{from: language, names: {sw: Bantu}}"


@dataclass(frozen=True)
class Attribute:
    """A kind whose name follows from the name of another kind.

    Attributes:
        kind: The kind that follows, as `family`.
        source: The kind that it follows from, as `language`.
        names: Name of the source -> name of the kind.
    """

    kind: str
    source: str
    names: Mapping[str, str]


def parse_attributes(cfg: Any) -> list[Attribute]:
    """Read `mixture.attributes`: kind -> {from: kind, names: {name: name}}.

    Raises:
        UserError: It has another form, or gives a kind that every dataset has.
    """
    if not isinstance(cfg or {}, Mapping):
        raise UserError(f"mixture.attributes is {cfg!r}; {{KIND: {_FORM}}} is needed")
    return [_parse(check_name("mixture.attributes", kind), rule) for kind, rule in (cfg or {}).items()]


def add_attributes(datasets: Iterable[dict[str, str]], attributes: Iterable[Attribute]) -> None:
    """Add to each dataset's attributes (kind -> name) those that follow from them.

    An attribute that an entry of the mixture gives itself is kept.

    Raises:
        UserError: A name has no entry in the table, or a dataset lacks the kind that it follows from.
    """
    datasets = list(datasets)
    for one in attributes:
        place = f"mixture.attributes.{one.kind}"
        left = [dataset for dataset in datasets if one.kind not in dataset]
        if without := [dataset for dataset in left if one.source not in dataset]:
            where = f"{without[0]['task']}/{without[0]['language']}"
            raise UserError(
                f"{place}.from is {one.source!r}, and the entry of {where} says {', '.join(without[0])}"
            )
        sources = dict.fromkeys(dataset[one.source] for dataset in left)
        if lacking := [name for name in sources if name not in one.names]:
            listed = list_names(lacking)
            raise UserError(
                f"{place}.names has no {one.source} {listed}; give {place}.names.{lacking[0]}=NAME"
            )
        for dataset in left:
            dataset[one.kind] = one.names[dataset[one.source]]


def known_attributes(known: Mapping[str, str], attributes: Iterable[Attribute]) -> dict[str, str]:
    """Return the known attributes of a text, kind -> name, and those that follow from them."""
    found = dict(known)
    for one in attributes:
        if one.kind not in found and (name := one.names.get(found.get(one.source, ""))):
            found[one.kind] = name
    return found


def _parse(kind: str, rule: Any) -> Attribute:
    place = f"mixture.attributes.{kind}"
    if ":" in kind or kind in ("task", "language", "shared"):
        raise UserError(f"{place}: a kind of your own is needed, without a colon")
    if not isinstance(rule, Mapping) or "from" not in rule or not isinstance(rule.get("names"), Mapping):
        raise UserError(f"{place} is {rule!r}; {_FORM} is needed")
    if unknown := [key for key in rule if key not in ("from", "names")]:
        hint = did_you_mean(unknown[0], ["from", "names"])
        raise UserError(f"{place}.{unknown[0]}: no such key; {hint}{_FORM} is needed")
    names = text_keys(f"{place}.names", rule["names"])
    names = {name: check_name(f"{place}.names.{name}", value) for name, value in names.items()}
    return Attribute(kind, check_name(f"{place}.from", rule["from"]), names)
