"""Which tables a folder of runs has the runs of, and the commands that make the others."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from omegaconf import OmegaConf

from flix_lightning.common import cli
from flix_lightning.common.scripts import HOME, name_commands
from flix_lightning.reports.columns import APPENDIX, JOINT
from flix_lightning.reports.render import Report
from flix_lightning.reports.tables import TABLES, make
from flix_lightning.runs.run import Run, resolve_all

#: Tables 6-50 show the datasets behind Tables 1 and 2.
_SHOWN = [name for name in TABLES if name not in {f"table{number}" for number in APPENDIX}]


class Missing(NamedTuple):
    """A table, what is missing of it (or why that cannot be said), and the command that makes it."""

    table: str
    reason: str
    command: str


class Available(NamedTuple):
    """A table's name, its finished runs, and its files, made of these runs.

    The runs are those on the seeds that have all of them, or else on the seeds that have some.
    """

    name: str
    runs: Sequence[Run]
    reports: Mapping[str, Report]

    @property
    def title(self) -> str:
        """Title of its first table."""
        return self.reports[self.name].tables[0].title

    @property
    def seeds(self) -> list[int]:
        """Seeds of its runs, sorted."""
        return sorted({run.cfg.seed for run in self.runs})


def find_tables(overrides: Sequence[str], runs: Sequence[Run]) -> tuple[dict[str, Available], list[Missing]]:
    """Find out which tables have finished runs, and which lack some, on the seeds and mixtures of `runs`.

    `overrides` are as for `python train.py -m`, without a sweep and a seed.
    """
    available, missing = {}, []
    seeds, mixtures = {run.cfg.seed for run in runs}, {run.cfg.mixture.name for run in runs}
    for name in _SHOWN:
        try:
            found, lacking = _find(name, overrides, seeds, mixtures)
        except cli.REPORTED_ERRORS as error:  # for example, its data is not on this machine
            found, lacking = None, Missing(name, cli.error_line(error), _command(name, overrides))
        available |= {name: found} if found else {}
        missing += [lacking] if lacking else []
    return available, missing


def _find(
    name: str, overrides: Sequence[str], seeds: Collection[int], mixtures: Collection[str]
) -> tuple[Available | None, Missing | None]:
    nothing = None, Missing(name, "no run of it is finished", _command(name, overrides))
    if not mixtures & _mixtures(name, overrides):  # to compose and to resolve configs takes seconds
        return nothing
    cfgs = cli.sweep_configs([f"+sweeps={name}", *overrides])
    runs, finished, left_out = {}, {}, []
    for seed in sorted(seeds):
        copies = [cfg.copy() for cfg in cfgs]  # composing them again for each seed would take a minute
        for cfg in copies:
            cfg.seed = seed
        runs[seed], left_out = resolve_all(copies)
        finished[seed] = [run for run in runs[seed] if run.finished]
    complete = [seed for seed in runs if runs[seed] and len(finished[seed]) == len(runs[seed])]
    begun = [seed for seed in runs if finished[seed] and seed not in complete]
    shown = complete or begun
    if not shown:
        return nothing
    lacking = None
    if begun:
        parts = [f"{len(finished[seed])} of {len(runs[seed])} on seed {seed}" for seed in begun]
        reason = f"runs that are finished: {', '.join(parts)}" + ("; not in the table" if complete else "")
        lacking = Missing(name, reason, _command(name, [*overrides, f"seed={','.join(map(str, begun))}"]))
    present = [run for seed in shown for run in finished[seed]]
    absent = [run.name for seed in shown for run in runs[seed] if run not in finished[seed]]
    return Available(name, present, make(name, present, absent, left_out)), lacking


def _mixtures(name: str, overrides: Sequence[str]) -> set[str]:
    """The mixtures of a sweep."""
    params = OmegaConf.load(HOME / "sweeps" / f"{name}.yaml").hydra.sweeper.params
    given = [one.partition("=")[2] for one in overrides if one.startswith("mixture=")]
    return set((given or [params.get("mixture", JOINT)])[-1].split(","))


def _command(name: str, overrides: Sequence[str]) -> str:
    return name_commands(f".venv/bin/python train.py -m {shlex.join([f'+sweeps={name}', *overrides])}")
