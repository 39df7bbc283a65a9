"""Names in configs. YAML and Hydra read some names as other values: no as false, 2020 as a number."""

from collections.abc import Mapping
from typing import Any

from flix_lightning.common.errors import UserError

_QUOTED = {
    False: 'YAML reads an unquoted no as false; write "no" in quotes',
    True: 'YAML reads an unquoted yes as true; write "yes" in quotes',
    None: "a name is missing (YAML reads an unquoted null as nothing)",
}


def check_name(place: str, name: Any) -> str:
    """Return a name at `place`; raises UserError unless it is a non-empty string of valid Unicode."""
    if isinstance(name, bool) or name is None:
        raise UserError(f"{place}: {_QUOTED[name]}")
    if not isinstance(name, str):
        raise UserError(f"{place}: {name!r} is not a string; write it in quotes")
    if not name:
        raise UserError(f"{place}: a name is empty")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: {name!r} holds half a surrogate pair, which is no character") from error
    return name


def as_text(value: Any) -> Any:
    """Return a value, or those of a list, as texts that YAML may have read so: false as "no", 20 as "20"."""
    if isinstance(value, list):
        return [as_text(one) for one in value]
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, int | float) else value


def text_keys(place: str, table: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a mapping of a config with its keys as strings. A key that is a number becomes its digits.

    Raises:
        UserError: A key is true, false or null, or as in `check_name`; or two keys are the same string.
    """
    texts = [str(key) if type(key) in (int, float) else key for key in table]
    result = {check_name(place, text): value for text, value in zip(texts, table.values(), strict=True)}
    if len(result) < len(table):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise UserError(f"{place} names {twice!r} twice")
    return result
