"""What a folder of runs holds of each table, and the commands that make the rest."""

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from flix_lightning.common import cli
from flix_lightning.reports.render import Report
from flix_lightning.reports.tables import TABLES, appendix, make
from flix_lightning.runs.run import Run, resolve_all

#: Tables 6-50 are the languages behind Tables 1 and 2, and their runs.
SHOWN = tuple(name for name in TABLES if name not in {f"table{number}" for number in appendix.SHOWN})


@dataclass(frozen=True)
class Lacking:
    """Runs that the folder has not.

    Attributes:
        table: the table's name.
        reason: what of it is not there, or why that cannot be said.
        command: what makes it.
    """

    table: str
    reason: str
    command: str


@dataclass(frozen=True)
class Held:
    """A table of which the folder has runs.

    Attributes:
        name: the table's.
        runs: its finished runs: on the seeds that have all of them, or else on those that have some.
        reports: the files of the table, of these runs.
    """

    name: str
    runs: Sequence[Run]
    reports: Mapping[str, Report]

    @property
    def seeds(self) -> list[int]:
        """Those of its runs, sorted."""
        return sorted({run.cfg.seed for run in self.runs})


def tables(overrides: Sequence[str], seeds: Collection[int]) -> tuple[dict[str, Held], list[Lacking]]:
    """Name -> what is there of each table on these seeds; and what is not.

    Args:
        overrides: of `python train.py -m`, without a sweep and a seed.
        seeds: to look for; at least one.

    Raises:
        UserError, HydraException, OmegaConfBaseException: no table can be planned with these overrides.
    """
    held, lacking, mistakes = {}, {}, []
    for name in SHOWN:
        try:
            held[name], lacking[name] = _table(name, overrides, seeds)
        except cli.REPORTED_ERRORS as mistake:  # its data or its base is not on this machine, say
            mistakes.append(mistake)
            lacking[name] = Lacking(name, cli.error_line(mistake), _command(name, overrides))
    if len(mistakes) == len(SHOWN):
        raise mistakes[0]
    return {name: one for name, one in held.items() if one}, [one for one in lacking.values() if one]


def _table(name: str, overrides: Sequence[str], seeds: Collection[int]) -> tuple[Held | None, Lacking | None]:
    cfgs = cli.sweep_configs([f"+sweeps={name}", *overrides])
    none = None, Lacking(name, "no run of it is finished", _command(name, overrides))
    there = Path(cfgs[0].output) / "runs"
    # First, as to plan its runs may mean to make the base that they are of.
    if not any(any(there.glob(f"*-{cfg.mixture.name}-seed*")) for cfg in cfgs):
        return none
    planned = {seed: resolve_all(_on_seed(cfgs, seed)) for seed in sorted(seeds)}
    done = {seed: [run for run in runs if run.finished] for seed, (runs, _) in planned.items()}
    complete = [seed for seed, (runs, _) in planned.items() if len(done[seed]) == len(runs) > 0]
    begun = [seed for seed in planned if done[seed] and seed not in complete]
    lacking = None
    if begun:
        parts = [f"{len(done[seed])} of {len(planned[seed][0])} on seed {seed}" for seed in begun]
        reason = f"runs that are finished: {', '.join(parts)}" + ("; not in the table" if complete else "")
        lacking = Lacking(name, reason, _command(name, [*overrides, f"seed={','.join(map(str, begun))}"]))
    shown = complete or begun
    if not shown:
        return none
    runs = [run for seed in shown for run in done[seed]]
    missing = [run.name for seed in shown for run in planned[seed][0] if not run.finished]
    return Held(name, runs, make(name, runs, missing, planned[shown[0]][1])), lacking


def _on_seed(cfgs: Sequence[DictConfig], seed: int) -> Iterator[DictConfig]:
    """The same configs on another seed: to compose them again for each would take a minute."""
    for cfg in cfgs:
        copy = cfg.copy()
        copy.seed = seed
        yield copy


def _command(name: str, overrides: Sequence[str]) -> str:
    return f".venv/bin/python train.py -m {shlex.join([f'+sweeps={name}', *overrides])}"
