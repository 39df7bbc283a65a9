"""Print and save a table from finished runs: `python report.py [--if-finished] +sweeps=table1 [seed=0,1,2]`.

The arguments are those of `python train.py -m`, so that the table is made of the very runs of that sweep.
"""

from pathlib import Path

from rich.console import Console

from flix_lightning.common import cli
from flix_lightning.common.errors import UserError
from flix_lightning.reports import render, sweeps

FLAG = "--if-finished"  # print the table only when all of its runs are there


def main(arguments: list[str]) -> int:
    """Print and save the table that the sweep names.

    Returns 3 when one of its runs is not finished; with `--if-finished`, nothing is printed then.
    """
    from flix_lightning.reports.tables import TABLES, make
    from flix_lightning.runs.run import resolve_all

    overrides = [one for one in arguments if one != FLAG]
    sweeps.register(overrides)
    cfgs = cli.sweep_configs(overrides)
    resolved, left_out = resolve_all(cfgs)
    missing = [run.name for run in resolved if not run.finished]
    if missing and FLAG in arguments:
        return 3
    names = {name for cfg in cfgs for name in cfg.tables}
    if len(names) != 1 or not names <= TABLES.keys():
        raise UserError(
            f"{' '.join(overrides) or 'No arguments'}: no sweep of a table; tables are {', '.join(TABLES)}"
        )
    (name,) = names
    runs = [run for run in resolved if run.finished]
    folder = Path(cfgs[0].output) / "tables"
    for file, report in make(name, runs, missing, left_out).items():
        render.save(report, folder, file)
        if file == name:
            report.terminal(Console())
    print(f"\nSaved in {folder}, as .md and .png: {', '.join(TABLES[name])}")
    return 3 if missing else 0


if __name__ == "__main__":
    cli.plain_main(main, __doc__)
