"""Whether a benchmark can tell methods apart: asked of the frozen base and of LoRA, before FLix is looked at.

A column that the frozen base half solves, or that LoRA does not learn or learns whole, says nothing.
"""

from collections.abc import Sequence

from flix_lightning.reports import render
from flix_lightning.reports.render import Report, Section, Table
from flix_lightning.reports.tables.scores import DASH, Scores, mean, missing_runs
from flix_lightning.reports.tables.table1 import COLUMNS
from flix_lightning.runs.run import Run

METHOD = "Compute-matched"
FROZEN_BELOW = 50
LORA_FROM, LORA_TO = 15, 90


def table(runs: Sequence[Run], missing: Sequence[str] = ()) -> Report:
    """The test scores of the frozen base and of compute-matched LoRA in Table 1's columns, and what they say.

    Args:
        runs: compute-matched LoRA on the mixtures of Table 1, tested with no feature on too.
        missing: names of the table's runs that are not there; the table is made without them and says so.

    Raises:
        UserError: runs that contradict each other (see `Scores`).
    """
    scores = Scores(COLUMNS, runs)
    frozen, adapted = ([scores.by_seed(c, METHOD, on).values() for c in COLUMNS] for on in ("none", "all"))
    passed = []
    for base, lora in zip(frozen, adapted, strict=True):
        holds = all(one < FROZEN_BELOW for one in base) and all(LORA_FROM <= one <= LORA_TO for one in lora)
        passed.append(DASH if not base or not lora else "yes" if holds else "no")
    rows = (
        (f"Frozen base, to be under {FROZEN_BELOW}", *map(mean, frozen)),
        (f"{METHOD} LoRA, to be from {LORA_FROM} to {LORA_TO}", *map(mean, adapted)),
        ("Passed", *passed),
    )
    heads = (render.Column(""), *(render.Column(column.head, column.group) for column in COLUMNS))
    note = "Test scores on 0-100, macro averages over languages; nothing of FLix is in them."
    results = Table("The benchmark's gates", heads, (Section("", rows),), (note,))
    return Report((results,), missing_runs(missing))
