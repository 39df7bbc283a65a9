"""Files and folders that are written whole or not at all, and known by their content."""

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from flix_lightning.common.errors import UserError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Put `content` at `path`, as `atomic_file` does; raises UserError as it does."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Give a temporary file beside `path` to write, which becomes it when the block ends: never half of it.

    Whatever stood at `path` before stays untouched until all of the new content is on the disk.

    Raises:
        UserError: the file cannot be written (full disk, no permission).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        reason = error.strerror or error
        raise UserError(f"cannot write {path}: {reason}; what stood there is untouched") from error


def remove_temporary_files(folder: Path) -> None:
    """Delete what killed processes left of `write_atomic` below `folder`, where nobody is writing now."""
    for path in folder.rglob(".*"):
        if re.fullmatch(r"\..+\.\d+", path.name):
            path.unlink()


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which becomes `folder` when the block ends, and is gone when it raises.

    Two processes may do the same at once, and a killed one leaves nothing that stands at `folder`: what they
    put there must be the same, as the first one's is kept.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield draft
        draft.chmod(0o755)  # mkdtemp's are for their owner alone
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def sha256(path: Path) -> str:
    """Give the SHA-256 (hex) of a file's content, read once a process as long as the file stays as it is.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        facts = path.stat()
        # Two changes within a clock tick look like one, so what changed just now is read each time.
        read = _sha256 if time.time() - facts.st_ctime > 2 else _sha256.__wrapped__
        return read(path, facts.st_ino, facts.st_size, facts.st_ctime_ns)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


@cache
def _sha256(path: Path, *facts: int) -> str:
    """A sweep asks for the same files once a run, and they may be gigabytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
