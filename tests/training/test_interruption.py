import os
import signal
import subprocess

import pytest
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from flix_lightning.runs.run import Run
from flix_lightning.training.interruption import SIGNALS, Preemption
from flix_lightning.training.processes import RunEnvironment


@pytest.fixture
def ran(monkeypatch):
    """The commands that are run, none of which is."""
    commands = []
    monkeypatch.setattr(rank_zero_only, "rank", 0)  # a follower's place changes it
    monkeypatch.setattr(subprocess, "run", commands.append)
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    return commands


def leave(how, **place):
    """Send a signal to a run that does not train yet; return its exit code."""
    preemption = Preemption(Run(OmegaConf.create(), "outputs/runs/a"), RunEnvironment(**place))
    try:
        with preemption.listen():
            os.kill(os.getpid(), how)
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize("how", SIGNALS)
def test_a_slurm_job_is_requeued_where_it_is_asked_for(ran, capsys, how):
    before = signal.getsignal(how)
    assert leave(how) == 143
    assert ran == ([] if how == signal.SIGTERM else [["scontrol", "requeue", "12"]])
    assert capsys.readouterr().err == "outputs/runs/a: interrupted; call again to go on\n"
    assert signal.getsignal(how) == before


def test_a_job_of_an_array_is_requeued_alone(ran, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "11")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    leave(signal.SIGUSR1)
    assert ran == [["scontrol", "requeue", "11_3"]]


def test_submitit_requeues_its_own_jobs(ran, monkeypatch):
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda signum, _: heard.append(signum))
    try:
        assert leave(signal.SIGUSR2) == 143
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (heard, ran) == ([signal.SIGUSR2], [])


def test_outside_of_slurm_nothing_is_requeued(ran, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID")
    assert leave(signal.SIGUSR1) == 143
    assert ran == []


def test_only_the_leading_process_has_an_exit_code_and_a_message(ran, capsys):
    """A launcher that sees another one fail would kill the leading one while it writes."""
    assert leave(signal.SIGUSR1, devices=2, local=1, all_started=True) == 0
    assert ran == []
    assert capsys.readouterr().err == ""
