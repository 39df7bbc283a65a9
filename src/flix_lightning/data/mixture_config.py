"""What the YAML of a mixture may say, and the datasets that it names."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from flix_lightning.common import settings
from flix_lightning.common.errors import UserError
from flix_lightning.common.names import check_name, text_keys
from flix_lightning.data.attributes import add_attributes, parse_attributes
from flix_lightning.tasks.definitions import Tasks

SHARED = "all"  # every dataset's name of the kind `shared`

_ENTRIES = settings.list_of(settings.ANY, "a list of entries, as {task: ner, languages: [sw]}, or all,")
_KEYS = {
    "name": settings.NAME,
    "ranks": settings.MAPPING,
    "train": _ENTRIES,
    "evaluate": _ENTRIES,
    "report": settings.list_of(settings.TEXT, "a list of tasks"),
    "sampling": settings.nullable(settings.MAPPING),
    "attributes": settings.nullable(settings.MAPPING),
}
_PARAMETERS = ("task", "language")  # keys that the lists of a mixture for one dataset refer to
_SAMPLING = {
    "temperature": settings.Kind(
        "a number above 0 or .inf (uniform)", lambda value: type(value) in (int, float) and value > 0
    ),
    "cap": settings.nullable(settings.integer(1)),
}


def parse_mixture(cfg: Mapping[str, Any], tasks: Tasks) -> dict[str, Any]:
    """Check a mixture's config against the tasks. Whether the data is there is not checked.

    Returns:
        name, ranks and report as the config has them; attributes, the kinds that follow from others;
        temperature (inf by default) and cap of the sampling; and train and evaluate as lists of the datasets'
        attributes: kind -> name, always with task, language and shared.

    Raises:
        UserError: An unknown key or task, a language code that cannot be a file's name, a dataset that is
            named twice, nothing to train on, or a value of the wrong kind.
    """
    cfg = settings.plain(cfg)
    settings.check_keys("mixture", cfg, _KEYS, also=_PARAMETERS)
    sampling = {"temperature": math.inf, "cap": None, **(cfg.get("sampling") or {})}
    settings.check_keys("mixture.sampling", sampling, _SAMPLING)
    if not cfg["train"]:
        raise UserError("mixture.train is empty: a run needs a dataset to train on")
    attributes = parse_attributes(cfg.get("attributes"))
    train, evaluate = (parse_entries(f"mixture.{part}", cfg[part], tasks) for part in ("train", "evaluate"))
    add_attributes([*train, *evaluate], attributes)
    return {
        "name": cfg["name"],
        "ranks": cfg["ranks"],
        "attributes": attributes,
        "train": train,
        "evaluate": evaluate,
        "report": [tasks.get(task).name for task in cfg["report"]],
        "temperature": float(sampling["temperature"]),
        "cap": sampling["cap"],
    }


def check_code(place: str, code: Any) -> None:
    """Raise UserError unless a language code can be part of a file's name."""
    if not settings.NAME.accepts(check_name(place, code)):
        raise UserError(f"{place}: {code!r} is no language code; {settings.NAME.words} is needed")


def parse_entries(place: str, entries: Any, tasks: Tasks) -> list[dict[str, str]]:
    """Return attributes, kind -> name, of each dataset of entries; raises UserError as `parse_mixture`."""
    _ENTRIES.require(place, entries)
    found = [
        one for n, entry in enumerate(entries) for one in _entry_attributes(f"{place}[{n}]", entry, tasks)
    ]
    counts = Counter((one["task"], one["language"]) for one in found)
    if twice := [f"{task}/{language}" for (task, language), count in counts.items() if count > 1]:
        raise UserError(f"{place} names datasets more than once: {', '.join(twice)}")
    return found


def _entry_attributes(place: str, entry: Any, tasks: Tasks) -> list[dict[str, str]]:
    if not isinstance(entry, Mapping) or "task" not in entry or not entry.get("languages"):
        raise UserError(f"{place}: {entry!r} needs `task` and a list `languages`")
    for kind in entry:
        if ":" in check_name(place, kind):
            raise UserError(f"{place}: {kind!r} is no name of a kind: a text without a colon is needed")
        if kind in ("language", "shared"):
            raise UserError(f"{place}.{kind}: the data gives this kind itself; entries say `languages`")
    task, languages = tasks.get(entry["task"]).name, entry["languages"]
    if isinstance(languages, str) or not isinstance(languages, Sequence):
        raise UserError(f"{place}.languages: {languages!r} is not a list of language codes")
    for code in languages:
        check_code(f"{place}.languages", code)
    more = {
        kind: _names(f"{place}.{kind}", value, languages)
        for kind, value in entry.items()
        if kind not in ("task", "languages")
    }
    return [
        {"task": task, "language": code, "shared": SHARED, **{kind: more[kind][code] for kind in more}}
        for code in languages
    ]


def _names(place: str, value: Any, languages: Sequence[str]) -> dict[str, str]:
    """Return language code -> name of an attribute that is one name, or a mapping from languages."""
    names = text_keys(place, value) if isinstance(value, Mapping) else dict.fromkeys(languages, value)
    if lacking := [code for code in languages if code not in names]:
        raise UserError(f"{place}: says nothing for {lacking[0]!r}, which the entry's languages name")
    return {code: check_name(place, names[code]) for code in languages}
