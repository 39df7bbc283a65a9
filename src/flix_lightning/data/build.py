"""Build a folder of files once, on all cores. Other processes wait for it, and a killed build is resumed."""

import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, current_process, forkserver, get_context, parent_process
from pathlib import Path
from typing import Any

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import lock, make_folder, remove_temporary_files

_log = logging.getLogger(__name__)

#: Number of parts from which on helper processes are used. They take some seconds to start.
PARALLEL_FROM = 8

#: Seconds between two lines of progress.
INTERVAL = 10

Write = Callable[[Path, Any], None]


def build_folder(folder: Path, parts: Sequence[Any], write: Write, title: str) -> None:
    """Make a folder with a file for each part (`00000.arrow`, …), unless it is there.

    Other processes that want the same folder wait. Files that were finished before a kill are kept. Raises
    UserError as `write`, or if a helper process was killed.

    Args:
        folder: Its name must depend on all that decides the content of its files.
        parts: What the files are made from, of about the same size.
        write: Writes the file of a part, complete or not at all. It and the parts can be pickled.
        title: What is done, for progress.
    """
    make_folder(folder.parent)
    with lock(folder.with_name(f".{folder.name}.lock"), waits_for=title):
        if folder.is_dir():
            return
        draft = folder.with_name(f".{folder.name}.draft")
        draft.mkdir(exist_ok=True)
        remove_temporary_files(draft)
        files = [(draft / f"{number:05}.arrow", part) for number, part in enumerate(parts)]
        left = [(path, part) for path, part in files if not path.exists()]
        began = last = time.monotonic()
        for done, _ in enumerate(_write_all(left, write), start=1):
            if (now := time.monotonic()) - last >= INTERVAL:
                last, seconds = now, (now - began) / done * (len(left) - done)
                share = 100 * (len(files) - len(left) + done) / len(files)
                _log.info("%s: %.0f %%, %.0f s left", title, share, seconds)
        draft.rename(folder)


def _write_all(files: Sequence[tuple[Path, Any]], write: Write) -> Iterator[None]:
    """Write files in their order, and yield after each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if len(files) < PARALLEL_FROM or cores == 1 or current_process().daemon:
        for path, part in files:
            yield write(path, part)
        return
    # A fork of this process could inherit locks, threads and a GPU.
    context = get_context("forkserver")
    context.set_forkserver_preload(["__main__", write.__module__])
    # SLURM sends these signals to all processes of a job, but they ask only this one to leave.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
    forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    pool = ProcessPoolExecutor(min(cores, len(files)), context, _start_helper, (write,))
    try:
        yield from pool.map(_help, *zip(*files, strict=True))
    except BrokenProcessPool as error:
        raise UserError("a helper process was killed, perhaps for memory; call again to go on") from error
    finally:
        pool.shutdown(cancel_futures=True)


_write: Write  # set in each helper process


def _start_helper(write: Write) -> None:
    global _write
    _write = write
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the helpers use all cores already
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process gets Ctrl-C too, and ends its helpers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gc.freeze()  # garbage collection need not look at what is imported


def _help(path: Path, part: Any) -> None:
    _write(path, part)


def _end_with_parent() -> None:
    connection.wait([parent_process().sentinel])  # ready too when the parent is killed
    os._exit(1)
