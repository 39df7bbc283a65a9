"""Tables made from the rows of many runs, beside the paper's own numbers.

Each is a pure function of finished runs: which runs belong to it, and which of them are missing, is the
caller's to say.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from flix_lightning.reports.render import Report
from flix_lightning.reports.tables import appendix, gates, lite, search, table1, table2
from flix_lightning.reports.tables import figure2 as diversity
from flix_lightning.reports.tables import growth as languages
from flix_lightning.reports.tables import table3 as dropout
from flix_lightning.reports.tables import table4 as ranks
from flix_lightning.reports.tables import table5 as shared
from flix_lightning.runs.run import Run, left_out_note

#: A table's name -> the files it is saved as, each with what makes it of its runs and the missing ones.
TABLES = {
    "table1": {"table1": table1.table, "table1-languages": table1.by_language},
    "gates": {"gates": gates.table},
    "table2": {"table2": table2.table},
    "table3": {"table3": dropout.table},
    "table4": {"table4": ranks.table},
    "table5": {"table5": shared.table},
    "figure2": {"figure2": diversity.figure},
    "lite": {"lite": lite.table},
    "languages": {"languages": languages.table},
    "search_flix": {"search_flix": search.table},
    "search_lora": {"search_lora": search.table},
    **{
        f"table{number}": {f"table{number}": partial(appendix.table, number)}
        for number in sorted(appendix.SHOWN)
    },
}


def make(
    name: str, runs: Sequence[Run], missing: Sequence[str], left_out: Sequence[str]
) -> dict[str, Report]:
    """Each file of the table that `name` is in `TABLES`.

    Args:
        runs: those of its runs that are finished.
        missing: names of those that are not.
        left_out: mixtures that the data holds nothing of.

    Raises:
        UserError: the runs do not belong together.
    """
    lacking = left_out_note(left_out)
    reports = {file: table(runs, missing) for file, table in TABLES[name].items()}
    return {file: replace(report, warnings=(*report.warnings, *lacking)) for file, report in reports.items()}
