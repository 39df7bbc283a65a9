"""Files and folders that are written atomically, and the hash of a file."""

import hashlib
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from flix_lightning.common.errors import UserError

log = logging.getLogger(__name__)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, unless it is there; raises UserError if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a part of this path is a file" if in_the_way else error.strerror
        raise UserError(f"cannot make the folder {folder}: {reason}; name another place") from error


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file as `atomic_file` does."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends.

    An earlier file at `path` stays untouched until all of the new content is on the disk. Raises UserError if
    the file cannot be written (full disk, no permission).
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        reason = error.strerror or error
        raise UserError(f"cannot write {path}: {reason}; an earlier file there is untouched") from error


def remove_temporary_files(folder: Path) -> None:
    """Delete the temporary files of killed processes below `folder`, where no process may be writing."""
    for path in folder.rglob(".*"):
        if re.fullmatch(r"\..+\.\d+", path.name):
            path.unlink()


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Make an empty folder that becomes `folder` when the block ends, and is deleted when it raises.

    Raises UserError as `make_folder`, or if `folder` has content by then: another process was first.
    """
    make_folder(folder.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp gives access to the owner only
        try:
            temporary.rename(folder)
        except OSError as error:
            if not folder.is_dir():
                raise
            raise UserError(f"{folder}: another process has just made it; it is kept as it is") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def lock(path: Path, waits_for: str | None = None) -> Iterator[None]:
    """Hold the lock of a lock file. The operating system frees it when its process dies.

    Args:
        path: the lock file, which is made and stays.
        waits_for: what another process that holds the lock does, for the log; None does not wait for it.

    Raises:
        Timeout: another process holds the lock, and `waits_for` is None.
        UserError: the file cannot be made, or its file system has no locks.
    """
    held = FileLock(path, fallback_to_soft=False)
    try:
        held.acquire(blocking=False)
    except Timeout:
        if waits_for is None:
            raise
        log.info("waiting for another process: %s", waits_for)
        held.acquire()
    except (OSError, NotImplementedError) as error:
        raise UserError(
            f"cannot lock {path} ({error}); give output=FOLDER on a file system with locks"
        ) from error
    try:
        yield
    finally:
        held.release()


def make_once(folder: Path, write: Callable[[Path], None]) -> Path:
    """Make a folder unless it is there, and return it.

    Other processes that ask for the folder wait. What a killed process has left of it is deleted.

    Args:
        folder: its name must depend on all that decides its content.
        write: writes the content into an empty folder, which is deleted if `write` raises.
    """
    if folder.is_dir():
        return folder
    make_folder(folder.parent)
    with lock(folder.with_name(f".{folder.name}.lock"), waits_for=f"making {folder}"):
        if not folder.is_dir():
            draft = folder.with_name(f".{folder.name}.draft")
            shutil.rmtree(draft, ignore_errors=True)
            try:
                draft.mkdir()
                write(draft)
                draft.rename(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return folder


def sha256(path: Path) -> str:
    """Return a file's SHA-256 (hex), reading it once until it changes; raises UserError if that fails."""
    try:
        stat = path.stat()
        # Two changes within one clock tick have the same times, so a file that just changed is read again.
        read = _sha256 if time.time() - stat.st_ctime > 2 else _sha256.__wrapped__
        return read(path, stat.st_ino, stat.st_size, stat.st_ctime_ns)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


@cache
def _sha256(path: Path, *stat: int) -> str:
    """Cached, as each run of a sweep asks for the same files, which may have gigabytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
