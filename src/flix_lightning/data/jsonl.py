"""Read files of one JSON object a line, with one clear line for what is wrong in them."""

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flix_lightning.common.errors import UserError

#: Bytes of the longest line. A longer one comes from a file without line ends.
MAX_LINE = 16 * 2**20

_ONE_OBJECT = "one JSON object a line is needed"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_HALF_PAIR = "holds half a surrogate pair, which is no character"


@dataclass(frozen=True)
class Span:
    """Whole lines of a file from number `line` on: bytes `start` to `stop`; None is the end of the file."""

    start: int = 0
    stop: int | None = None
    line: int = 1


WHOLE_FILE = Span()


def split_lines(path: Path, size: int) -> list[Span]:
    """Cut a file into spans of about `size` bytes, between two lines that hold objects; may raise OSError."""
    starts, position, line = [(0, 1)], 0, 1
    with path.open("rb") as file:
        while chunk := file.read(size):
            cut = max(chunk.rfind(b"}\n{") + 2, chunk.rfind(b"}\r\n{") + 3)
            if cut > 2:
                starts.append((position + cut, line + chunk.count(b"\n", 0, cut)))
            position += len(chunk)
            line += chunk.count(b"\n")
    stops = [start for start, _ in starts[1:]] + [None]
    return [Span(start, stop, line) for (start, line), stop in zip(starts, stops, strict=True)]


def read_objects(path: Path, span: Span = WHOLE_FILE) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place (`file:line number`, from 1) and the JSON object of each line in a span of a file.

    Lines may end as on Windows, the file may begin with UTF-8's byte order mark, and blank lines may stand at
    its end.

    Raises:
        UserError: The file is missing or empty, or a line holds bytes that are not UTF-8, a NUL byte, half a
            surrogate pair, more than MAX_LINE bytes or anything but a JSON object.
    """
    number, blank, position = span.line - 1, None, span.start
    try:
        with path.open("rb") as file:
            if position:  # a pipe cannot seek
                file.seek(position)
            while position != span.stop and (line := file.readline(MAX_LINE + 1)):
                position += len(line)
                number += 1
                if len(line) <= MAX_LINE and not line.strip(b" \t\r\n" + codecs.BOM_UTF8 * (number == 1)):
                    blank = blank or number
                elif blank:
                    raise UserError(f"{path}:{blank}: a blank line before the end; {_ONE_OBJECT}")
                else:
                    yield f"{path}:{number}", _parse(line, f"{path}:{number}", number == 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if blank == 1 or number == 0:
        raise UserError(f"{path}: the file is empty; {_ONE_OBJECT}")


def get_string(attributes: Mapping[str, Any], key: str, where: str) -> str:
    """Return the value of a key of the line at `where`; raises UserError unless it is valid Unicode text."""
    value = attributes[key]
    if not isinstance(value, str):
        raise UserError(f"{where}: the value of {key!r} is {json.dumps(value)[:40]}; a string is needed")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: the value of {key!r} {_HALF_PAIR}") from error
    return value


def _parse(line: bytes, where: str, is_first: bool) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise UserError(f"{where}: a line of more than {MAX_LINE >> 20} MiB; {_ONE_OBJECT}")
    if b"\0" in line:
        raise UserError(
            f"{where}: a NUL byte (byte {line.index(0) + 1} of the line); the file is damaged or not UTF-8"
        )
    try:
        text = line.decode().rstrip("\r\n")
        attributes = json.loads(text.removeprefix("\ufeff") if is_first else text)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 (byte {error.start + 1} of the line)") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({_fault(error)}); {_ONE_OBJECT}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
        raise UserError(f"{where}: JSON that cannot be read ({error})") from error
    if not isinstance(attributes, dict):
        raise UserError(f"{where}: a JSON {type(attributes).__name__} where an object is needed")
    if _SURROGATE.search(line):
        for key, value in attributes.items():
            for part, name in (key, f"the key {key!r}"), (value, f"the value of {key!r}"):
                try:
                    json.dumps(part, ensure_ascii=False).encode()
                except UnicodeEncodeError as error:
                    raise UserError(f"{where}: {name} {_HALF_PAIR}") from error
    return attributes


def _fault(error: json.JSONDecodeError) -> str:
    end = len(error.doc.rstrip())
    if error.pos >= end or error.msg.startswith("Unterminated string"):
        return f"cut off at column {end + 1}"
    return f"{error.msg}, column {error.colno}"
