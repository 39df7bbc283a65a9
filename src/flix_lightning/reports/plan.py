"""Which runs a set of sweeps comes to, which of them are there already, and how long the rest will take."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import fmean

from flix_lightning.reports import render
from flix_lightning.reports.render import Report, Section, Table
from flix_lightning.runs.run import Run, left_out_note

FINISHED, BEGUN, TO_DO = "finished", "begun", "to do"


@dataclass(frozen=True)
class Entry:
    """A run and the tables that it is part of.

    Attributes:
        run: the run.
        tables: their names.
        state: finished, begun (it has a checkpoint to go on from) or to do.
        seconds: of training with its validations; None unless finished.
    """

    run: Run
    tables: tuple[str, ...]
    state: str
    seconds: float | None


def entries(runs: Iterable[Run]) -> list[Entry]:
    """Each run once, with all of its tables, in the order in which they first name it.

    Raises:
        UserError: a finished run's results are not as they were written.
    """
    tables, first = defaultdict(list), {}
    for run in runs:
        first.setdefault(run.path, run)
        tables[run.path] += run.cfg.tables
    return [_entry(run, tuple(dict.fromkeys(tables[path]))) for path, run in first.items()]


def _entry(run: Run, tables: tuple[str, ...]) -> Entry:
    if not run.finished:
        return Entry(run, tables, BEGUN if run.checkpoints.is_dir() else TO_DO, None)
    return Entry(run, tables, FINISHED, run.facts["seconds"])


def expected_seconds(found: Sequence[Entry]) -> Mapping[str, float]:
    """Run folder's name -> seconds that a run which is not finished should take, where that can be said.

    The mean of the finished runs of its method on its mixture, else of all finished runs. What a begun run
    has done already is not taken off.
    """
    alike = defaultdict(list)
    for entry in found:
        if entry.seconds is not None:
            alike[_kind(entry)].append(entry.seconds)
    every = [seconds for values in alike.values() for seconds in values]
    return {
        entry.run.name: fmean(alike.get(_kind(entry), every))
        for entry in found
        if entry.state != FINISHED and every
    }


def _kind(entry: Entry) -> tuple[str, str]:
    return entry.run.method, entry.run.mixture.name


def report(found: Sequence[Entry], left_out: Sequence[str] = ()) -> Report:
    """A line for each run, and what they come to.

    Args:
        found: the runs.
        left_out: mixtures that the data holds nothing of.
    """
    expected = expected_seconds(found)
    lines = [
        (
            entry.run.name,
            entry.state,
            _duration(entry.seconds or expected.get(entry.run.name)),
            " ".join(entry.tables),
        )
        for entry in found
    ]
    done = sum(entry.state == FINISHED for entry in found)
    left = sum(expected.values()) if expected or done == len(found) else None
    notes = [
        f"{len(found)} runs: {done} finished, {len(found) - done} left; time left, one after another: "
        f"{_duration(left)}.",
        "Time: training with its validations, without tests; that of a run which is left is the mean of the "
        "finished runs of its method and mixture, else of all of these finished runs.",
        *left_out_note(left_out),
    ]
    heads = ("Run", "State", "Time", "Tables")
    table = Table("Runs", tuple(map(render.Column, heads)), (Section("", tuple(lines)),), tuple(notes))
    return Report((table,))


def _duration(seconds: float | None) -> str:
    return "unknown" if seconds is None else str(timedelta(seconds=round(seconds)))
