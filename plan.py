"""Print the paper's runs, those finished and the time left: `python plan.py [+sweeps=table1] [key=value]`.

The arguments are those of `python train.py -m`; without a sweep, all of the paper's tables and figures.
"""

from rich.console import Console

from flix_lightning.common import cli
from flix_lightning.common.errors import UserError
from flix_lightning.reports import sweeps


def main(overrides: list[str]) -> None:
    """Print the runs of the sweeps that the overrides name; nothing is trained.

    Raises:
        UserError: a mixture or a method is given, and no sweep.
    """
    from flix_lightning.reports.plan import report
    from flix_lightning.runs.run import resolve_all

    console = Console()
    named = any(override.startswith("+sweeps=") for override in overrides)
    if not named and (taken := [one for one in overrides if one.startswith(("mixture=", "flix="))]):
        raise UserError(
            f"{taken[0]}: each table has its own; name a table, as +sweeps=table1, or leave it out"
        )
    wanted = [[]] if named else [[f"+sweeps={name}"] for name in sweeps.PAPER]
    sweeps.register(overrides if named else [f"+sweeps={name}" for name in sweeps.PAPER])
    with console.status("Resolving the sweeps"):  # for all of them some twenty seconds
        cfgs = [cfg for sweep in wanted for cfg in cli.sweep_configs([*sweep, *overrides])]
        runs, left_out = resolve_all(cfgs)
        table = report(runs, left_out)
    table.terminal(console)


if __name__ == "__main__":
    cli.plain_main(main, __doc__)
