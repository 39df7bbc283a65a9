"""`--help`: the keys of a config file with their comments, on one screen."""

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import yaml
from rich.table import Table

from flix_lightning.common.errors import UserError
from flix_lightning.common.scripts import name_commands


class Entry(NamedTuple):
    """A key of a config file; a key that only opens a section has no value."""

    key: str
    value: str | None
    comment: str


def help_table(folders: Sequence[Path], config: str) -> Table:
    """Lay out a config's title, and its keys with their values and comments.

    `config` is "train", or a choice of a group as "trainer/gpu"; it is looked for in `folders`, in order.
    Raises UserError if there is none.
    """
    text = _read(folders, config)
    prefix = "" if "# @package _global_" in text else config.rpartition("/")[0]
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold")
    head = takewhile(lambda line: line.startswith("# "), text.splitlines())
    table.title = "\n".join(line.removeprefix("# ") for line in head if not line.startswith("# @"))
    table.title_justify, table.title_style = "left", "default"
    for key, value, comment in entries(folders, config):
        if value is not None or comment:
            key = f"{prefix}.{key}".removeprefix(".")
            table.add_row(f"{key}={value}" if value is not None else f"{key}:", comment)
    return table


def entries(folders: Sequence[Path], config: str) -> list[Entry]:
    """Read the keys of a config and of the configs of its group that it starts from.

    A key without a comment gets the comment of the config that it starts from.
    """
    text = _read(folders, config)
    group = config.rpartition("/")[0]
    found: dict[str, Entry] = {}
    root = yaml.compose(text)
    if not isinstance(root, yaml.MappingNode):  # an empty file
        return []
    for key, value in root.value:
        for base in value.value if key.value == "defaults" else ():
            if base.value != "_self_" and isinstance(base, yaml.ScalarNode):
                found |= {one.key: one for one in entries(folders, f"{group}/{base.value}".removeprefix("/"))}
    for one in _own_entries(text, root):
        found[one.key] = one._replace(comment=one.comment or found.get(one.key, one).comment)
    return [one for one in found.values() if one.key.partition(".")[0] != "hydra"]


def _read(folders: Sequence[Path], config: str) -> str:
    for folder in folders:
        if (file := folder / f"{config}.yaml").is_file():
            try:
                return name_commands(file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{file}: cannot be read ({error})") from error
    raise UserError(f"no config {config}.yaml in {', '.join(map(str, folders))}")


def _own_entries(text: str, node: yaml.MappingNode, prefix: str = "") -> Iterator[Entry]:
    for key, value in node.value:
        if f"{prefix}{key.value}" == "defaults":
            for choice in value.value:
                if isinstance(choice, yaml.MappingNode) and " " not in choice.value[0][0].value:
                    yield from _own_entries(text, choice)
            continue
        comment = _comment(text.splitlines(), key.start_mark.line)
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield Entry(f"{prefix}{key.value}", None, comment)
            yield from _own_entries(text, value, f"{prefix}{key.value}.")
            continue
        written = text[value.start_mark.index : value.end_mark.index]
        if isinstance(value, yaml.SequenceNode) and any(
            isinstance(one, yaml.MappingNode) for one in value.value
        ):
            written = "[…]"
        yield Entry(f"{prefix}{key.value}", written, comment)


def _comment(lines: list[str], number: int) -> str:
    """Give the comment at the end of a line, or the comment lines above it."""
    if at_end := re.search(r"\s# (.*)", lines[number]):
        return at_end[1]
    first = number
    while first and lines[first - 1].lstrip().startswith("# "):
        first -= 1
    return " ".join(line.strip(" #") for line in lines[first:number])
