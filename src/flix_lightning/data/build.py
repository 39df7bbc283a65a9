"""Build a folder of files once: by one process of all that ask, on all its cores, and on after a kill."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, current_process, get_context, parent_process
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import remove_temporary_files

_log = logging.getLogger(__name__)

#: Parts from which on other processes help. They need some seconds to start.
PARALLEL_FROM = 8

#: Seconds between two lines of progress.
INTERVAL = 10


def build_folder(folder: Path, parts: Sequence[Any], write: Callable[[Path, Any], None], title: str) -> None:
    """Make a folder that has one file for each part, `00000.arrow` and so on, unless it is there.

    Other processes that want the same folder wait. After a kill, the files that were finished are kept.

    Args:
        folder: The folder. Its name must depend on all that decides the content of its files.
        parts: What the files are made from, of about the same size.
        write: Writes the file of a part, complete or not at all. It and the parts can be pickled.
        title: What is done, for progress.

    Raises:
        UserError: `write` raises it, or a process that helps was killed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(f".{folder.name}.lock"), title):
        if folder.is_dir():
            return
        draft = folder.with_name(f".{folder.name}.draft")
        draft.mkdir(exist_ok=True)
        remove_temporary_files(draft)
        paths = [draft / f"{number:05}.arrow" for number in range(len(parts))]
        left = [(path, part) for path, part in zip(paths, parts, strict=True) if not path.exists()]
        _report(title, len(parts), len(left), _written(left, write))
        draft.rename(folder)


@contextmanager
def _lock(path: Path, title: str) -> Iterator[None]:
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        _log.info("%s: waiting for another process that does it", title)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _written(left: Sequence[tuple[Path, Any]], write: Callable[[Path, Any], None]) -> Iterator[None]:
    """Write the files in order, and yield after each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if len(left) < PARALLEL_FROM or cores == 1 or current_process().daemon:
        for path, part in left:
            yield write(path, part)
        return
    # Not forked from this process: it may hold locks, threads and a GPU.
    context = get_context("forkserver")
    context.set_forkserver_preload(["__main__", write.__module__])
    pool = ProcessPoolExecutor(min(cores, len(left)), context, _start_helper, (write,))
    try:
        yield from pool.map(_help, *zip(*left, strict=True))
    except BrokenProcessPool as error:
        raise UserError(
            "a process that tokenizes was killed, perhaps for memory; call again to go on"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_write: Callable[[Path, Any], None]  # of a helper


def _start_helper(write: Callable[[Path, Any], None]) -> None:
    global _write
    _write = write
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes use all cores already
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the main process too, which ends its helpers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent ends, even if that is killed."""
    connection.wait([parent_process().sentinel])
    os._exit(1)


def _help(path: Path, part: Any) -> None:
    _write(path, part)


def _report(title: str, count: int, left: int, written: Iterator[None]) -> None:
    """Log a line of progress at most every INTERVAL seconds."""
    began = last = time.monotonic()
    for done, _ in enumerate(written, start=1):
        now = time.monotonic()
        if now - last >= INTERVAL:
            last = now
            seconds = (now - began) / done * (left - done)
            _log.info("%s: %.0f %%, %.0f s left", title, 100 * (count - left + done) / count, seconds)
