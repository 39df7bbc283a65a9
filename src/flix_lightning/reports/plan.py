"""The runs of some sweeps: which are finished, and how long the others will take."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from statistics import fmean

from flix_lightning.reports.render import Column, Report, Section, Table
from flix_lightning.runs.run import Run, left_out_note


def report(runs: Iterable[Run], left_out: Sequence[str] = ()) -> Report:
    """List each run once, in order of first appearance, with its state, its time and its tables.

    The time of a run that is not finished is the mean of the finished runs of its method and mixture, or else
    of all finished runs; the time that a begun run has spent already is not subtracted. `left_out` are the
    mixtures that the data holds nothing of. Raises UserError if a finished run's results are broken.
    """
    unique, tables = {}, defaultdict(dict)
    for run in runs:
        unique.setdefault(run.name, run)
        tables[run.name] |= dict.fromkeys(run.cfg.tables)
    took, alike = {}, defaultdict(list)
    for run in unique.values():
        if run.finished:
            took[run.name] = run.facts["seconds"]
            alike[run.method, run.mixture.name].append(took[run.name])
    lines, left = [], 0.0
    for name, run in unique.items():
        state = "finished" if name in took else "begun" if run.checkpoints.is_dir() else "to do"
        seconds = took.get(name)
        if seconds is None and took:
            seconds = fmean(alike.get((run.method, run.mixture.name), took.values()))
            left += seconds
        lines.append((name, state, _duration(seconds), " ".join(tables[name])))
    to_do = len(unique) - len(took)
    notes = (
        f"{len(unique)} runs: {len(took)} finished, {to_do} left; time left, one after another: "
        f"{_duration(left if took or not to_do else None)}.",
        "Time: training with its validations, without tests. For a run that is not finished: the mean of the "
        "finished runs of its method and mixture, or else of all finished runs.",
        *left_out_note(left_out),
    )
    heads = tuple(map(Column, ("Run", "State", "Time", "Tables")))
    return Report((Table("Runs", heads, (Section("", tuple(lines)),), notes),))


def _duration(seconds: float | None) -> str:
    return "unknown" if seconds is None else str(timedelta(seconds=round(seconds)))
