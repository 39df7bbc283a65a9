"""The page, from the tables and runs that are there."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flix_lightning.common.errors import UserError
from flix_lightning.reports.chart import Bars, Curves, svg
from flix_lightning.reports.dashboard.available import find_tables
from flix_lightning.reports.dashboard.comparison import of_any_runs, of_tables
from flix_lightning.reports.dashboard.curves import curves, learning_curves
from flix_lightning.reports.dashboard.samples import samples
from flix_lightning.reports.render import Best
from flix_lightning.reports.tables import table3, table4
from flix_lightning.reports.tables.differences import VERDICTS
from flix_lightning.runs.run import Run
from flix_lightning.tasks.languages import find_name

_CURVES = {"table3": table3.curves, "table4": table4.curves}  # the tables that are read as curves

_BASELINES = {
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
    runs = [Run.open(path.parent) for path in sorted((output / "runs").glob("*/results.jsonl"))]
    if not runs:
        raise UserError(f"{output / 'runs'}: no finished run; `make reproduce-table1` makes the first six")
    available, missing = find_tables(overrides, runs)
    by_table, any_runs = of_tables(available), of_any_runs(runs, available.values())
    compared = [*by_table, *any_runs]
    try:
        found = samples(compared[0]) if compared else None
    except UserError:
        if by_table:
            raise
        found = None  # the data of these runs may be gone
    languages = {code: None for one in compared for against in one.against for code in against.languages}
    environment = _environment(
        {code: name for run in runs for code, name in run.tasks.language_names.items()}
    )
    content = {
        "output": output,
        "newest": datetime.fromtimestamp(max(run.results.stat().st_mtime for run in runs)),
        "unfinished": sum(path.is_dir() for path in (output / "runs").iterdir()) - len(runs),
        "runs": runs,
        "members": {name: {run.id for run in one.runs} for name, one in available.items()},
        "available": available,
        "any_runs": any_runs,
        "missing": missing,
        "compared": compared,
        "languages": [code for code, _ in environment.filters["by_name"](languages)],
        "heads": list(dict.fromkeys(column.head for one in compared for column in one.columns)),
        "curves": {name: make(available[name].runs) for name, make in _CURVES.items() if name in available},
        "charts": available["figure2"].reports.values() if "figure2" in available else [],
        "learning": learning_curves(compared[0].table.runs if compared else []),
        "samples": found,
    }
    return environment.get_template("page.html").render(content)


def _environment(names: Mapping[str, str]) -> Environment:
    """Everything that data says is escaped; a name that the template misspells is an error.

    `names` are the user's own names of languages, by code.
    """

    def language(code: str) -> str:
        """A language's name; what stands in the place of a language, as a task, is its own."""
        return names.get(code) or find_name(code) or code

    def by_name(languages: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """What a mapping by language holds, by the languages' names."""
        return sorted(languages.items(), key=lambda one: language(one[0]).lower())

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
        "language": language,
        "by_name": by_name,
        "draw": _draw,
        "curves": curves,
        "facts": lambda run: {row.metric: row for row in run.rows if row.split == "train"},
        "grouped": lambda items, name: [list(alike) for _, alike in groupby(items, attrgetter(name))],
    }
    environment.tests["best"] = lambda cell: isinstance(cell, Best)
    environment.globals |= {"baselines": _BASELINES, "verdicts": VERDICTS}
    return environment


def _draw(panel: Bars | Curves) -> Markup:
    return Markup(svg(panel))  # which escapes all texts
