"""Tables from the result rows of many runs, beside the paper's own numbers.

Each is a pure function of finished runs. The caller knows which runs belong to it, and which are missing.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from flix_lightning.reports.columns import APPENDIX
from flix_lightning.reports.render import Report
from flix_lightning.reports.tables import (
    appendix,
    figure2,
    gates,
    growth,
    search,
    table1,
    table2,
    table3,
    table4,
    table5,
)
from flix_lightning.reports.tables.comparison import Comparison
from flix_lightning.runs.run import Run, left_out_note

_ONE_FILE = {
    "gates": gates.table,
    "table2": table2.table,
    "table3": table3.table,
    "table4": table4.table,
    "table5": table5.table,
    "figure2": figure2.figure,
    "languages": growth.table,
    "search_flix": search.table,
    "search_lora": search.table,
    **dict.fromkeys(("search_lite", "dropout", "dropout_kinds"), search.trials),
    **{f"table{number}": partial(appendix.table, number) for number in sorted(APPENDIX)},
}

TABLES: dict[str, dict[str, Callable[[Sequence[Run]], Report]]] = {
    **{
        sweep: {
            sweep: partial(table1.table, sweep),
            f"{sweep}-languages": partial(table1.languages, sweep),
            f"{sweep}-mistakes": partial(table1.mistakes_report, sweep),
        }
        for sweep in table1.COLUMNS
    },
    **{name: {name: table} for name, table in _ONE_FILE.items()},
}
"""Name of a sweep -> the files of its table, each with the function that makes it of finished runs.

A function raises UserError for a run that is not of its table, and for runs that contradict each other.
"""

_COMPARISON = {
    "comparison-languages": lambda runs: Comparison.of(runs).languages_report(),
    "comparison": lambda runs: Comparison.of(runs).report(f"Comparison of {len(runs)} runs"),
}


def make(
    name: str, runs: Sequence[Run], missing: Sequence[str], left_out: Sequence[str]
) -> dict[str, Report]:
    """Make each file of the table of the sweep `name`, a key of `TABLES`; any other name compares any runs.

    `runs` are those of its runs that are finished, and `missing` names the others. `left_out` are mixtures
    that the data holds nothing of. Raises UserError if the runs do not belong together.
    """
    first = [f"Missing runs, so this table is not complete: {', '.join(missing)}"] if missing else []
    reports = {}
    for file, table in TABLES.get(name, _COMPARISON).items():
        report = table(runs)
        warnings = (*first, *report.warnings, *left_out_note(left_out))
        reports[file] = replace(report, warnings=warnings)
    return reports
