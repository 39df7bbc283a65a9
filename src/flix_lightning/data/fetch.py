"""A file over HTTP that goes on where it broke off, and counts as there only when it was checked."""

import hashlib
import ssl
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from flix_lightning.common.errors import UserError

#: Failures in a row, each without a new byte, after which a download is given up; seconds before the next
#: try, doubled each time; seconds that a server may stay silent.
TRIES, PAUSE, TIMEOUT = 5, 1.0, 60

_BROKEN = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
_WORTH_ANOTHER_TRY = (408, 425, 429)  # and all from 500


def fetch(url: str, path: Path, check: Callable[[Path], None]) -> None:
    """Download `url` to `path`, unless it is there; a broken transfer goes on, in this call and a later one.

    check: raises UserError for a file that is not what it should be, which is then thrown away.
    Raises UserError for an address that the server refuses, and for a transfer that broke off TRIES times
    in a row without a new byte: what arrived stays for the next call.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    failures, arrived = 0, _arrived(path)
    while not path.exists():
        try:
            _go_on(url, path, check)
        except _BROKEN as error:
            if isinstance(error, HTTPError) and error.code < 500 and error.code not in _WORTH_ANOTHER_TRY:
                raise UserError(f"{url}: the server says {error.code} {error.reason}") from error
            now = _arrived(path)
            failures, arrived = (0 if now > arrived else failures) + 1, now
            if failures >= TRIES:
                raise UserError(
                    f"{url}: broke off {TRIES} times in a row ({error}); {arrived:,} bytes are kept, call "
                    "again to go on from there"
                ) from error
            time.sleep(PAUSE * 2 ** (failures - 1))


def _parts(path: Path) -> list[Path]:
    return list(path.parent.glob(f".{path.name}.*.part"))


def _arrived(path: Path) -> int:
    return sum(part.stat().st_size for part in _parts(path))


def _go_on(url: str, path: Path, check: Callable[[Path], None]) -> None:
    size, version = _head(url)
    part = path.with_name(f".{path.name}.{version}.part")
    for other in _parts(path):  # of what the server held before
        if other != part:
            other.unlink()
    start = part.stat().st_size if part.exists() and size is not None else 0
    if start == 0 or start != size:
        _append(url, part, start, size)
    arrived = part.stat().st_size
    if size is not None and arrived < size:
        raise ConnectionError(f"{arrived:,} of {size:,} bytes arrived")
    try:
        if size is not None and arrived > size:
            raise UserError(f"{arrived:,} bytes arrived where {size:,} were announced")
        check(part)
    except UserError as error:
        part.unlink()
        message = str(error).replace(str(part), path.name)
        raise UserError(f"{url}: {message}; what arrived is thrown away") from error
    part.rename(path)


def _head(url: str) -> tuple[int | None, str]:
    """Give the size in bytes, where the server says it, and a name for what it holds now."""
    with urlopen(Request(url, method="HEAD"), timeout=TIMEOUT) as response:
        facts = [response.headers.get(key) for key in ("Content-Length", "ETag", "Last-Modified")]
    size = int(facts[0]) if facts[0] else None
    return size, hashlib.sha256(repr(facts).encode()).hexdigest()[:8]


def _append(url: str, part: Path, start: int, size: int | None) -> None:
    headers = {"Range": f"bytes={start}-"} if start else {}
    with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as response:
        goes_on = response.status == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {start}-"
        )
        with (
            part.open("ab" if goes_on else "wb") as file,
            tqdm(
                desc=part.name.split(".")[1], total=size, initial=start if goes_on else 0,
                unit="B", unit_scale=True, disable=None,
            ) as progress,
        ):  # fmt: skip
            while chunk := response.read1(2**16):
                progress.update(file.write(chunk))
