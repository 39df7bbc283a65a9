"""Compare finished runs: print a table, and save it as .md, .png and, with every score, as .csv.

python report.py +sweeps=table1 seed=0,1,2           a table of the paper, from the runs of that sweep
python report.py flix=flix,compute_matched seed=0,1  any runs, by the arguments of `python train.py -m`
python report.py outputs/runs/flix-* other/runs      any runs, by their folders, or by folders that hold runs
--if-finished                                        print nothing when one of the runs is not finished
"""

from pathlib import Path

from rich.console import Console

from flix_lightning.common import cli
from flix_lightning.common.errors import UserError
from flix_lightning.common.files import write_atomic
from flix_lightning.reports import render, sweeps

FLAG = "--if-finished"


def main(arguments: list[str]) -> int:
    """Print and save the table; return 3 when a run is not finished, 1 when what the table checks fails.

    Raises:
        UserError: no run is finished, the runs do not belong together, or there is no such folder or table.
    """
    from flix_lightning.reports.tables import TABLES, make
    from flix_lightning.reports.tables.comparison import scores_csv
    from flix_lightning.runs.run import Run, resolve_all

    overrides = [one for one in arguments if one != FLAG]
    folders = [
        one for one in cli.parse_options(overrides).overrides if "=" not in one and not one.startswith("~")
    ]
    if folders:
        if len(folders) < len(overrides):
            raise UserError("either folders of runs or KEY=VALUE; both are given")
        runs = [Run.open(path) for folder in folders for path in _runs_in(Path(folder))]
        home = runs[0].path.parent
        missing, left_out, names, output = [], [], set(), home.parent if home.name == "runs" else home
    else:
        sweeps.register(overrides)
        cfgs = cli.sweep_configs(overrides)
        resolved, left_out = resolve_all(cfgs)
        runs = [run for run in resolved if run.finished]
        missing = [run.name for run in resolved if run not in runs]
        names, output = {name for cfg in cfgs for name in cfg.tables}, Path(cfgs[0].output)
    if missing and FLAG in arguments:
        return 3
    if unknown := sorted(names - TABLES.keys()):
        raise UserError(f"tables=[{unknown[0]}]: no such table; tables are {', '.join(TABLES)}")
    name = names.pop() if len(names) == 1 else "comparison"
    if not runs and name == "comparison":
        raise UserError(f"no run is finished of {', '.join(missing)}; `python train.py -m` trains them")
    reports = make(name, runs, missing, left_out)
    for file, report in reports.items():
        render.save(report, output / "tables", file)
    write_atomic(output / "tables" / f"{name}.csv", scores_csv(runs))
    for file in reports if name == "comparison" else [name]:
        reports[file].terminal(Console())
    print(f"\nSaved in {output / 'tables'}, as .md, .png and .csv: {', '.join(reports)}")
    return 3 if missing else int(any(report.failed for report in reports.values()))


def _runs_in(folder: Path) -> list[Path]:
    """The folder of a run, or the folders of all finished runs that a folder holds."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder, and not KEY=VALUE")
    return sorted(path.parent for path in folder.glob("*/results.jsonl")) or [folder]


if __name__ == "__main__":
    cli.plain_main(main, __doc__)
