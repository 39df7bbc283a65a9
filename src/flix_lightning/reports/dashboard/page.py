"""The page, from the tables and runs that are there."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from flix_lightning.common.errors import UserError
from flix_lightning.reports.dashboard import curves as everyrun
from flix_lightning.reports.dashboard import drawing
from flix_lightning.reports.dashboard.available import tables
from flix_lightning.reports.dashboard.comparison import AHEAD, BEHIND, OPEN, OURS, comparisons
from flix_lightning.reports.dashboard.samples import samples
from flix_lightning.reports.tables import table3 as dropout
from flix_lightning.reports.tables import table4 as ranks
from flix_lightning.tasks.languages import is_known, language_name

#: The tables that are read as curves.
CURVES = {"table3": dropout.curves, "table4": ranks.curves}

BASELINES = {
    "Compute-matched": "FLix's active rank, so its cost",
    "Param-matched": "FLix's size, so a higher cost",
}


def page(output: Path, overrides: Sequence[str]) -> str:
    """HTML of what the runs below `output` hold.

    Args:
        output: the folder that `runs/` is in.
        overrides: what its runs were made with, as for `python train.py -m`, without a sweep and a seed.

    Raises:
        UserError, HydraException, OmegaConfBaseException: no run is there; the overrides fit no sweep; a run
            is not as it was written.
    """
    runs = everyrun.finished_runs(output / "runs")
    if not runs:
        raise UserError(f"{output / 'runs'}: no finished run; `make reproduce-table1` makes the first six")
    held, lacking = tables(overrides, {run.rows[0].seed for run in runs})
    compared = comparisons(held)
    members = {name: {run.id for run in one.runs} for name, one in held.items()}
    first = members[compared[0].held.name] if compared else ()
    content = {
        "output": output,
        "newest": datetime.fromtimestamp(max(run.results.stat().st_mtime for run in runs)),
        "unfinished": sum(path.is_dir() for path in (output / "runs").iterdir()) - len(runs),
        "runs": runs,
        "members": members,
        "held": held,
        "lacking": lacking,
        "compared": compared,
        "curves": {name: make(held[name].runs) for name, make in CURVES.items() if name in held},
        "charts": held["figure2"].reports.values() if "figure2" in held else [],
        "learning": everyrun.learning_curves(run for run in runs if run.id in first),
        "samples": samples(compared[0]) if compared else None,
    }
    return _environment().get_template("page.html").render(content)


def _environment() -> Environment:
    """Everything that data says is escaped; a name that the template misspells is an error."""
    environment = Environment(
        loader=PackageLoader("flix_lightning.reports.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "signed": lambda number: f"{number:+z.1f}",
        "duration": lambda seconds: str(timedelta(seconds=round(seconds))),
        "language": _language,
        "by_name": lambda languages: sorted(languages.items(), key=lambda one: _language(one[0]).lower()),
        "draw": drawing.Drawing,
        "runs_of": lambda items, name: [list(some) for _, some in groupby(items, attrgetter(name))],
    }
    environment.globals |= {
        "ours": OURS,
        "baselines": BASELINES,
        "verdicts": (AHEAD, OPEN, BEHIND),
        "styles": {OURS: 0, "Compute-matched": 1, "Param-matched": 2},
        "drawing": drawing,
        "curves_of": everyrun.curves,
    }
    return environment


def _language(code: str) -> str:
    """A language's name; what stands in the place of a language, as a task, is its own."""
    return language_name(code) if is_known(code) else code
