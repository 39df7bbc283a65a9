"""XTREME-UP's layout, `{task}/{split}/{language}.jsonl`, wherever its folder comes from."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flix_lightning.common.errors import UserError, list_names
from flix_lightning.common.files import sha256
from flix_lightning.data.jsonl import WHOLE_FILE, Span, get_string, read_objects
from flix_lightning.tasks.definitions import Task, Tasks

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Example:
    """One line of data.

    Attributes:
        id: `{task}/{language}/{split}/{line number}`, line numbers from 1.
        input: The prompted input text.
        target: The target text. It may be empty (an NER sentence without entities).
        attributes: All keys of the line. A feature kind may name one.
    """

    id: str
    input: str
    target: str
    attributes: dict[str, Any]


class Layout:
    """A folder in XTREME-UP's layout. Hidden files in it are no data (macOS adds `._sw.jsonl`).

    `tasks` are those that its folders may be of, and the names of languages; None is the shipped tasks.
    """

    def __init__(self, root: str | Path, tasks: Tasks | None = None):
        self.root, self.tasks = Path(root), tasks or Tasks.of()

    def path(self, task: str, split: str, language: str) -> Path:
        """Return the path of a dataset's split. Translation's is `en2{language}.jsonl`."""
        return self.root / task / split / (self.tasks.get(task).file.format(language=language) + ".jsonl")

    def datasets(self, split: str) -> list[tuple[str, str]]:
        """Return (task, language) of every dataset that has this split, ordered by task and language."""
        found = []
        for task, definition in self.tasks.by_name.items():
            prefix, suffix = definition.file.split("{language}")
            for path in sorted((self.root / task / split).glob(f"{prefix}*{suffix}.jsonl")):
                if not is_hidden(path.name):
                    found.append((task, path.stem.removeprefix(prefix).removesuffix(suffix)))
        return found

    def unknown_tasks(self) -> list[str]:
        """Return the names of folders that hold a split and are no task's."""
        holders = {path.parent.name for split in SPLITS for path in self.root.glob(f"*/{split}/")}
        return sorted(name for name in holders if name not in self.tasks.by_name and not is_hidden(name))

    def read(self, task: str, split: str, language: str, span: Span = WHOLE_FILE) -> Iterator[Example]:
        """Yield the examples of a split in the order of their lines; raises UserError as `read_lines`."""
        definition = self.tasks.get(task)
        lines = read_lines(self.path(task, split, language), definition, span)
        for number, attributes in enumerate(lines, start=span.line):
            yield Example(
                id=f"{task}/{language}/{split}/{number}",
                input=self.tasks.render(definition, attributes, language),
                target=attributes[definition.target],
                attributes=attributes,
            )

    def fingerprint(self, paths: Iterable[Path]) -> str:
        """Return a SHA-256 (hex) of the paths below the root and the content of these files, in order."""
        total = hashlib.sha256()
        for path in paths:
            total.update(f"{path.relative_to(self.root).as_posix()} {sha256(path)}\n".encode())
        return total.hexdigest()


def read_lines(path: Path, task: Task, span: Span = WHOLE_FILE) -> Iterator[dict[str, Any]]:
    """Read a task's file, one line at a time. A line may have keys beside the task's own.

    Raises:
        UserError: As `read_objects`; or a line lacks a key of the task, or its value is not a string.
    """
    for where, attributes in read_objects(path, span):
        for key in task.keys:
            if key not in attributes:
                raise UserError(f"{where}: lacks the key {key!r}; {task.name} needs {', '.join(task.keys)}")
            get_string(attributes, key, where)
        yield attributes


def find_layout(folder: Path, tasks: Tasks, shown_as: Path | None = None) -> Path:
    """Return the folder that holds the tasks: `folder` itself, or the only one in it that does.

    What an archive unpacks to holds one folder (`xtreme_up_v1.1/`). Raises UserError if no folder, or more
    than one, holds the tasks; the error names `shown_as` in place of `folder`.
    """
    if _holds_tasks(folder, tasks):
        return folder
    inside = sorted(path for path in folder.iterdir() if not is_hidden(path.name))
    found = [path for path in inside if _holds_tasks(path, tasks)]
    if len(found) == 1:
        return found[0]
    where, names = shown_as or folder, list_names([path.name for path in found or inside], 8)
    if found:
        raise UserError(f"{where}: {len(found)} folders of it hold the layout ({names}); one is needed")
    raise UserError(
        f"{where}: no <task>/<{'|'.join(SPLITS)}>/<language>.jsonl at its top or in one folder of it, with a "
        f"task of {', '.join(tasks.by_name)}; it holds {names or 'nothing'}"
    )


def is_hidden(name: str) -> bool:
    """Return whether the name of a file or folder hides it."""
    return name.startswith(".") and name != ".."


def _holds_tasks(folder: Path, tasks: Tasks) -> bool:
    files = (
        path for task in tasks.by_name for split in SPLITS for path in folder.glob(f"{task}/{split}/*.jsonl")
    )
    return any(not is_hidden(path.name) for path in files)
