"""The lock of a folder that one process at a time may work in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import remove_temporary_files


class RunBusy(UserError):  # noqa: N818 - a state of the run, not a fault
    """Another process is working on this run."""


@contextmanager
def lock_folder(path: Path) -> Iterator[None]:
    """Make a folder, hold it alone, and delete the half-written files that a killed process left in it.

    The operating system releases the lock when its process dies. On a network file system it does so when it
    notices that the machine is gone (NFS 4: after its lease).

    Raises:
        RunBusy: another process holds the folder.
        UserError: the folder cannot be made, or its file system has no locks.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the run's folder {path}: {error.strerror or error}") from error
    lock = FileLock(path / ".lock", blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunBusy(f"{path}: another process is working on this run; wait for it, or end it") from error
    except (OSError, NotImplementedError) as error:
        raise UserError(
            f"cannot lock {path / '.lock'} ({error}); give output=FOLDER on a file system with locks"
        ) from error
    try:
        remove_temporary_files(path)
        yield
    finally:
        lock.release()
