"""Whether a benchmark can tell methods apart, by the frozen base and LoRA, before FLix is looked at.

A column that the frozen base half solves, or that LoRA does not learn or learns whole, says nothing.
"""

from collections.abc import Sequence

from flix_lightning.reports.columns import TABLE1
from flix_lightning.reports.paper import DASH
from flix_lightning.reports.render import Column, Report, Section, Table
from flix_lightning.reports.tables.methods import explain
from flix_lightning.reports.tables.scores import Scores, mean
from flix_lightning.runs.run import Run

METHOD = "Compute-matched"
FROZEN_BELOW = 50
LORA_FROM, LORA_TO = 15, 90


def table(runs: Sequence[Run]) -> Report:
    """The test scores of the frozen base and of compute-matched LoRA in Table 1's columns, and the verdict.

    Args:
        runs: compute-matched LoRA on the mixtures of Table 1, tested without any feature too.
    """
    scores = Scores(TABLE1, {METHOD: runs})
    frozen, adapted = (
        [scores.by_seed(c, METHOD, active).values() for c in TABLE1] for active in ("none", "all")
    )
    passed = []
    for base, lora in zip(frozen, adapted, strict=True):
        holds = all(one < FROZEN_BELOW for one in base) and all(LORA_FROM <= one <= LORA_TO for one in lora)
        passed.append(DASH if not base or not lora else "yes" if holds else "no")
    lines = (
        (f"Frozen base, to be under {FROZEN_BELOW}", *map(mean, frozen)),
        (f"{METHOD} LoRA, to be from {LORA_FROM} to {LORA_TO}", *map(mean, adapted)),
        ("Passed", *passed),
    )
    heads = (Column(""), *(Column(column.head, column.group) for column in TABLE1))
    notes = (*explain("Test scores", runs), "No run of FLix is in them.")
    return Report((Table("The benchmark's gates", heads, (Section("", lines),), notes),))
