"""The lock of a folder that one process at a time may work in."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import Timeout

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import lock, make_folder, remove_temporary_files


class RunBusy(UserError):  # noqa: N818 - a state of the run, not a fault
    """Another process is working on this run."""


@contextmanager
def lock_folder(path: Path) -> Iterator[None]:
    """Make a folder, hold it alone, and delete the half-written files that a killed process left in it.

    A network file system frees a dead machine's lock when it notices that the machine is gone (NFS 4: after
    its lease).

    Raises:
        RunBusy: another process holds the folder.
        UserError: the folder cannot be made, or its file system has no locks.
    """
    make_folder(path)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(path / ".lock"))
        except Timeout as error:
            raise RunBusy(
                f"{path}: another process is working on this run; wait for it, or end it"
            ) from error
        remove_temporary_files(path)
        yield
