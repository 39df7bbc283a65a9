"""An append-only file of lines that a later process can resume."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path

from filelock import Timeout

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import lock, make_folder, write_atomic

_CHUNK = 2**20  # bytes


class AppendFile:
    """An open append-only file of `count` lines; `open_append_file` makes it."""

    def __init__(self, file: FileIO):
        self._file = file
        self.count, self._end = _complete_lines(file)
        self._truncate()  # a killed process may leave an incomplete last line

    def add(self, lines: Iterable[str]) -> None:
        """Append lines without their line ends, all or none; raises OSError if they cannot be written."""
        encoded = [f"{line}\n".encode() for line in lines]
        rest = memoryview(b"".join(encoded))
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._truncate()
            raise
        self.count += len(encoded)
        self._end = self._file.tell()

    def _truncate(self) -> None:
        if os.fstat(self._file.fileno()).st_size != self._end:
            self._file.truncate(self._end)


@contextmanager
def open_append_file(path: Path, inputs: Mapping[str, str | bool]) -> Iterator[AppendFile]:
    """Begin a file of lines, or resume it if it was begun with the same inputs.

    `inputs` are all that decides its lines; they are kept beside it in `<name>.inputs.json`. Nothing is left
    if the block ends or raises before the first line.

    Raises:
        UserError: the file was begun with other inputs, or is something else; or another process is writing
            it; or its folder cannot be made.
        OSError: the file cannot be made.
    """
    inputs_path = path.with_name(f"{path.name}.inputs.json")
    make_folder(path.parent)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(path.with_name(f".{path.name}.lock")))
        except Timeout as error:
            raise UserError(f"{path}: another process is writing it; wait for it, or end it") from error
        if path.exists() or inputs_path.exists():
            _check_same(path, inputs_path, inputs)
        else:
            write_atomic(inputs_path, json.dumps(inputs, indent=1) + "\n")
        with path.open("a+b", buffering=0) as file:
            lines = AppendFile(file)
            try:
                yield lines
            finally:
                if not lines.count:
                    path.unlink()
                    inputs_path.unlink()


def _check_same(path: Path, inputs_path: Path, inputs: Mapping[str, str | bool]) -> None:
    cure = f"delete it and {inputs_path.name}, or name another file"
    try:
        before = dict(json.loads(inputs_path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} exists already and cannot be resumed; {cure}") from error
    if changed := [key for key in before.keys() | inputs.keys() if before.get(key) != inputs.get(key)]:
        raise UserError(f"{path} was begun with another {', '.join(sorted(changed))}; call as before, {cure}")


def _complete_lines(file: FileIO) -> tuple[int, int]:
    """Count the complete lines of a file, and find the position after the last of them."""
    count = end = position = 0
    file.seek(0)
    while chunk := file.read(_CHUNK):
        count += chunk.count(b"\n")
        end = position + chunk.rfind(b"\n") + 1 if b"\n" in chunk else end
        position += len(chunk)
    return count, end
