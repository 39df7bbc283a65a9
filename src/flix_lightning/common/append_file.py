"""A file of lines that grows as they are made, and goes on where it was after its process was killed."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from filelock import FileLock, Timeout

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import write_atomic

_CHUNK = 2**20  # bytes that are read at once


class AppendFile:
    """The lines of a file, to which more are added; `open_append_file` makes it.

    Attributes:
        count: how many there are.
    """

    def __init__(self, file: FileIO):
        self._file = file
        self.count, self._end = _whole_lines(file)
        self._cut()  # what a killed process left of its last line

    def add(self, lines: Iterable[str]) -> None:
        """Add lines, which have no line end yet; what of them cannot be written leaves no half line.

        Raises:
            OSError: they cannot be written (full disk).
        """
        added = [f"{line}\n".encode() for line in lines]
        left = memoryview(b"".join(added))
        try:
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._cut()
            raise
        self.count += len(added)
        self._end = self._file.tell()  # which appending has moved to the end

    def _cut(self) -> None:
        if os.fstat(self._file.fileno()).st_size != self._end:
            self._file.truncate(self._end)


@contextmanager
def open_append_file(path: Path, made_of: Mapping[str, str | bool]) -> Iterator[AppendFile]:
    """Begin a file of lines, or go on with it where all that it is made of is as it was.

    Where the block ends or raises before the first line, nothing is left.

    Args:
        path: the file.
        made_of: what decides its lines; kept beside it, in `<name>.made-of.json`.

    Raises:
        UserError: it is there, and was begun otherwise (naming what differs) or by no such call; another
            process is at it; it cannot be written.
    """
    facts = path.with_name(f"{path.name}.made-of.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"), blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{path}: another process is writing it; wait for it, or end it") from error
    try:
        if path.exists() or facts.exists():
            _check_same(path, facts, made_of)
        else:
            write_atomic(facts, json.dumps(made_of, indent=1) + "\n")
        with path.open("a+b", buffering=0) as file:
            lines = AppendFile(file)
            try:
                yield lines
            finally:
                if not lines.count:
                    path.unlink()
                    facts.unlink()
    finally:
        lock.release()


def _check_same(path: Path, facts: Path, made_of: Mapping[str, str | bool]) -> None:
    cure = f"delete it and {facts.name}, or name another file"
    try:
        before = json.loads(facts.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is there already, and not to be gone on with; {cure}") from error
    if changed := [key for key in before.keys() | made_of.keys() if before.get(key) != made_of.get(key)]:
        raise UserError(f"{path} was begun with another {', '.join(sorted(changed))}; call as before, {cure}")


def _whole_lines(file: FileIO) -> tuple[int, int]:
    """How many whole lines a file has, and where the last of them ends."""
    count = end = position = 0
    file.seek(0)
    while chunk := file.read(_CHUNK):
        count += chunk.count(b"\n")
        end = position + chunk.rfind(b"\n") + 1 if b"\n" in chunk else end
        position += len(chunk)
    return count, end
