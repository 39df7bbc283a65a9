"""Reader of XTREME-UP's layout: `{task}/{split}/{language}.jsonl`, wherever the folder comes from."""

import codecs
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import sha256
from flix_lightning.tasks.definitions import TASKS, Task, get_task

SPLITS = ("train", "validation", "test")

#: Bytes of the longest line that is read: more is no example, but a file without line ends.
MAX_LINE = 16 * 2**20


@dataclass(frozen=True)
class Example:
    """One line of data.

    id: `{task}/{language}/{split}/{line number}`, the line number counted from 1.
    input: prompted input text.
    target: target text; may be empty (an NER sentence without entities).
    attributes: the line as it stands, every key of it: a feature kind may name one.
    """

    id: str
    input: str
    target: str
    attributes: dict[str, Any]


class Layout:
    """A folder in XTREME-UP's layout; raises UserError when there is no such folder."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(
                f"{self.root}: no such folder; data.root is a folder of <task>/<split>/<language>.jsonl"
            )

    def path(self, task: str, split: str, language: str) -> Path:
        """Give the file of one data set's split; translation's is `en2{language}.jsonl`."""
        return self.root / task / split / (get_task(task).file.format(language=language) + ".jsonl")

    def has(self, task: str, split: str, language: str) -> bool:
        """Say whether that file is there."""
        return self.path(task, split, language).is_file()

    def datasets(self, split: str) -> list[tuple[str, str]]:
        """Give (task, language) of every data set that has that split, in the order of tasks and codes."""
        found = []
        for task, definition in TASKS.items():
            before, after = definition.file.split("{language}")
            for path in sorted((self.root / task / split).glob(f"{before}*{after}.jsonl")):
                found.append((task, path.stem.removeprefix(before).removesuffix(after)))
        return found

    def read(self, task: str, split: str, language: str) -> Iterator[Example]:
        """Read one data set's split in the order of its lines; raises UserError as `read_lines` does."""
        definition = get_task(task)
        lines = read_lines(self.path(task, split, language), definition)
        for number, attributes in enumerate(lines, start=1):
            yield Example(
                id=f"{task}/{language}/{split}/{number}",
                input=definition.render(attributes, language),
                target=attributes[definition.target],
                attributes=attributes,
            )

    def fingerprint(self, paths: Iterable[Path]) -> str:
        """Give a SHA-256 (hex) over the named files' places below the root and their content, in order."""
        total = hashlib.sha256()
        for path in paths:
            total.update(f"{path.relative_to(self.root).as_posix()} {sha256(path)}\n".encode())
        return total.hexdigest()


def find_layout(folder: Path, called: Path | None = None) -> Path:
    """Give the folder that holds the layout's tasks: `folder` itself, or the only one in it that does.

    An archive puts all that it holds into one folder of its own (`xtreme_up_v1.1/`). Raises UserError when
    neither is so, which says what would be right, what is there, and `called` for where that is.
    """
    if _holds_layout(folder):
        return folder
    inside = sorted(folder.iterdir())
    found = [one for one in inside if _holds_layout(one)]
    if len(found) == 1:
        return found[0]
    where = called or folder
    if found:
        names = ", ".join(one.name for one in found)
        raise UserError(f"{where}: the layout stands in {len(found)} folders of it ({names}); one is needed")
    names = ", ".join(one.name for one in inside[:8]) + (", …" if len(inside) > 8 else "")
    raise UserError(
        f"{where}: no <task>/<{'|'.join(SPLITS)}>/<language>.jsonl at its top or in one folder of it, with a "
        f"task of {', '.join(TASKS)}; it holds {names or 'nothing'}"
    )


def _holds_layout(folder: Path) -> bool:
    return any(any(folder.glob(f"{task}/{split}/*.jsonl")) for task in TASKS for split in SPLITS)


def read_lines(path: Path, task: Task) -> Iterator[dict[str, Any]]:
    """Read a file of one JSON object a line, one at a time, each with the task's keys and perhaps others.

    Raises UserError as `read_objects` does, and for a key of the task that a line lacks or whose value is not
    a string of valid Unicode.
    """
    for where, attributes in read_objects(path):
        for key in task.keys:
            if key not in attributes:
                raise UserError(f"{where}: lacks the key {key!r}; {task.name} needs {', '.join(task.keys)}")
            check_text(attributes, key, where)
        yield attributes


def check_text(attributes: Mapping[str, Any], key: str, where: str) -> str:
    """Give the value of a key of the line at `where`; raises UserError for no string of valid Unicode."""
    value = attributes[key]
    if not isinstance(value, str):
        raise UserError(f"{where}: the value of {key!r} is {json.dumps(value)[:40]}; a string is needed")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: the value of {key!r} holds half a surrogate pair, which is no character"
        ) from error
    return value


def read_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a file of one JSON object a line, one at a time, each with its place (`file:line number`).

    Lines may end as on Windows, and the file may begin with UTF-8's byte order mark. Raises UserError
    naming the file, and the line where it is at fault: a missing or empty file, bytes that are not UTF-8, a
    NUL byte, a line above MAX_LINE or that is not a JSON object.
    """
    number = 0
    try:
        with path.open("rb") as file:
            lines = iter(lambda: file.readline(MAX_LINE + 1), b"")
            for number, line in enumerate(lines, start=1):
                text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                where = f"{path}:{number}"
                yield where, _parse(text, where)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if number == 0:
        raise UserError(f"{path}: the file is empty; one JSON object a line is needed")


def _parse(line: bytes, where: str) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise UserError(
            f"{where}: a line of more than {MAX_LINE >> 20} MiB; one JSON object a line is needed"
        )
    if b"\0" in line:
        raise UserError(
            f"{where}: a NUL byte (byte {line.index(0) + 1} of the line); the file is damaged or not UTF-8"
        )
    try:
        attributes = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 (byte {error.start + 1} of the line)") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: not JSON ({error.msg}, column {error.colno}); one object a line is needed"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
        raise UserError(f"{where}: JSON that cannot be read ({error})") from error
    if not isinstance(attributes, dict):
        raise UserError(f"{where}: a JSON {type(attributes).__name__} where an object is needed")
    return attributes
