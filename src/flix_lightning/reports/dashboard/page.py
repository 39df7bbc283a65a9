"""The page, from the tables and runs that are there."""

from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flix_lightning.common.errors import UserError
from flix_lightning.reports.chart import Bars, Curves, svg
from flix_lightning.reports.dashboard.available import find_tables
from flix_lightning.reports.dashboard.comparison import Comparison, of_any_runs, of_tables
from flix_lightning.reports.dashboard.curves import curves, learning_curves
from flix_lightning.reports.dashboard.samples import OF_TASK, Sample, samples
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


def page(output: Path, overrides: Sequence[str], samples_of: Collection[str] | None = None) -> str:
    """HTML of what the runs in the folder `runs/` of `output` hold.

    They were made with `overrides`, as for `python train.py -m`, without a sweep and a seed. `samples_of` are
    the tasks whose texts may be shown; None stands for what the runs say.

    Raises:
        UserError, HydraException, OmegaConfBaseException: no run is there; the overrides fit no sweep; a run
            is not as it was written.
    """
    runs = [Run.open(path.parent) for path in sorted((output / "runs").glob("*/results.jsonl"))]
    if not runs:
        raise UserError(f"{output / 'runs'}: no finished run; `python train.py` makes the first")
    available, missing = find_tables(overrides, runs)
    any_runs = of_any_runs(runs, available.values())
    comparisons = [*of_tables(available), *any_runs]
    compared = [one for one in comparisons if one.against]
    shown = [(one, *_samples(one, samples_of)) for one in comparisons]
    environment = _environment(
        {code: name for run in runs for code, name in run.tasks.language_names.items()}
    )
    script, _, _ = environment.loader.get_source(environment, "page.js")
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
        "curves": {name: make(available[name].runs) for name, make in _CURVES.items() if name in available},
        "charts": available["figure2"].reports.values() if "figure2" in available else [],
        "learning": learning_curves(compared[0].table.runs if compared else []),
        "samples": [one for one in shown if any(one[1:])],
        "of_task": OF_TASK,
        "script": Markup(script),
    }
    return environment.get_template("page.html").render(content)


def _samples(one: Comparison, tasks: Collection[str] | None) -> tuple[dict[str, list[Sample]], list[str]]:
    """Samples by task, and notes on what is left out."""
    try:
        by_task, left_out = samples(one, tasks)
    except UserError as error:  # for example, the data of any runs may be gone
        return {}, [f"Left out: {error}"]
    return by_task, [
        f"{task}: its texts are left out, as its licence may not let them be shown (data.samples names the "
        "tasks that may be)."
        for task in left_out
    ]


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
        "sha256": lambda text: f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}",
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
