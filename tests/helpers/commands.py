"""The real commands, each in a process of its own, forked from one that has done the slow imports."""

import atexit
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

REPOSITORY = Path(__file__).parents[2]
LIMIT = 300  # seconds a command may take

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["imported"])


@dataclass
class Command:
    """A command that was started; `stdout` and `stderr` are files in its folder."""

    process: BaseProcess
    folder: Path

    @property
    def out(self):
        return (self.folder / "stdout").read_text()

    @property
    def err(self):
        return (self.folder / "stderr").read_text()

    def wait(self, code=0):
        """Wait for its end, which must be with this exit code (-9 is a kill)."""
        self.process.join(LIMIT)
        assert self.process.exitcode == code, self.out + self.err
        return self

    def wait_for(self, pattern):
        """Wait until it has made a file of this pattern in its folder; return all of them."""
        deadline = time.monotonic() + LIMIT
        while not (found := sorted(self.folder.glob(pattern))):
            assert self.process.is_alive(), self.out + self.err
            assert time.monotonic() < deadline, f"no {pattern}"
            time.sleep(0.002)
        return found

    def kill(self):
        """Do as `kill -9`."""
        self.process.kill()
        return self.wait(-signal.SIGKILL)


def start(folder, script, *arguments, before=None):
    """Start `python <script> <arguments>` in `folder`, once `before()` was called in its process."""
    folder.mkdir(parents=True, exist_ok=True)
    process = _context.Process(target=_work, args=(folder, script, [str(one) for one in arguments], before))
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(paths)):  # for `imported`
        os.environ.pop("HYDRA_FULL_ERROR", None)  # flix_lightning.common.cli set it, where it was imported
        process.start()
    return Command(process, folder)


def run(folder, script, *arguments, code=0, before=None):
    """As `start`, and wait for its end."""
    return start(folder, script, *arguments, before=before).wait(code)


def make(*arguments, limit=LIMIT):
    """Make a target as in a user's shell, which has no make and no process of W&B around it."""
    unset = ("MAKEFLAGS", "MAKELEVEL", "WANDB_SERVICE")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    return subprocess.run(
        ["make", *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=limit
    )


def compose(config, *overrides):
    """Compose conf/<config>.yaml."""
    from flix_lightning.common.cli import hydra  # here, as few tests need it

    with hydra.initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return hydra.compose(config, list(overrides))


def join(rank, port, *moments):
    """Make this process one of two, as torchrun does."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"NODE_RANK": "0", "LOCAL_RANK": str(rank)}
    for moment in moments:
        moment()


def start_two(folder, script, *arguments, moments=((), ())):
    """Start a command in two processes, each in a folder and with moments of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return [
        start(folder / f"rank{rank}", script, *arguments, before=partial(join, rank, port, *moments[rank]))
        for rank in (0, 1)
    ]


def _work(folder, script, arguments, before):
    # Where the code under test started the server of forks, `start` could not keep the variable from it. Once
    # cli is imported, Hydra needs the variable.
    if cli := sys.modules.get("flix_lightning.common.cli"):
        cli.TRACEBACK = False
    else:
        os.environ.pop("HYDRA_FULL_ERROR", None)
    os.environ.pop("WANDB_SERVICE", None)  # W&B's process of an earlier test, which may have ended
    os.chdir(folder)
    # As in a terminal, also where pytest is a shell's background job, which ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((1, "stdout"), (2, "stderr")):
        with open(name, "wb") as file:
            os.dup2(file.fileno(), number)
    path = str(REPOSITORY / script)
    sys.argv = [path, *arguments]
    if before:
        before()
    try:
        runpy.run_path(path, run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing's processes end without
