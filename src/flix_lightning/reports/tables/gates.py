"""Whether a benchmark can tell methods apart, judged by the frozen base and LoRA before FLix is run.

A column says nothing if LoRA is hardly better than guessing or than the frozen base, or if it is near 100.
"""

from collections.abc import Sequence
from statistics import fmean

from flix_lightning.cldr.guessing import guess
from flix_lightning.reports.columns import TABLE1
from flix_lightning.reports.paper import DASH
from flix_lightning.reports.render import Column, Report, Section, Table
from flix_lightning.reports.tables.methods import FROZEN, explain
from flix_lightning.reports.tables.scores import Scores, mean
from flix_lightning.runs.rows import Row
from flix_lightning.runs.run import Run

METHOD = "Compute-matched"
LEAST_GAIN = 10  # of LoRA above guessing, and above the frozen base
BELOW = 90


def table(runs: Sequence[Run]) -> Report:
    """The test scores of a guess, the frozen base and LoRA in Table 1's columns, and the verdict.

    `runs` are compute-matched LoRA on the mixtures of Table 1, tested without any feature too.
    """
    scores = Scores(TABLE1, {METHOD: runs}, controls={FROZEN: (METHOD, "none")})
    frozen, adapted = ([scores.by_seed(c, line).values() for c in TABLE1] for line in (FROZEN, METHOD))
    guessed = []
    for column in TABLE1:
        found = {
            name: one for seed in scores.seeds for name, one in scores.rows(column, METHOD, seed).items()
        }
        guessed.append([fmean(_guess(*one) for one in found.values())] if found else [])
    passed = []
    for floors, lora in zip(zip(guessed, frozen, strict=True), adapted, strict=True):
        least = max((max(floor) for floor in floors if floor), default=0) + LEAST_GAIN
        complete = lora and all(floors)
        passed.append((all(least <= one < BELOW for one in lora)) if complete else None)
    lines = (
        ("Guessing", *map(mean, guessed)),
        (FROZEN, *map(mean, frozen)),
        (f"{METHOD} LoRA", *map(mean, adapted)),
        ("Passed", *({True: "yes", False: "no", None: DASH}[one] for one in passed)),
    )
    heads = (Column(""), *(Column(column.head, column.group) for column in TABLE1))
    notes = (
        *explain("Test scores", runs),
        f"Passed: LoRA is at least {LEAST_GAIN} above guessing and above the frozen base, and under {BELOW}.",
        "Guessing knows the tasks' formats and no language. No run of FLix is in this table.",
    )
    table = Table("The benchmark's gates", heads, (Section("", lines),), notes)
    return Report((table,), failed=not all(passed))


def _guess(run: Run, row: Row) -> float:
    return guess(row.task, row.language, list(run.layout.read(row.task, "test", row.language)))
