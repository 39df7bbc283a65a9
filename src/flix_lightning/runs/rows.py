"""The result rows of a run, one number each: `results.jsonl`."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import write_atomic
from flix_lightning.data.jsonl import read_objects

SCHEMA = 1
"""Version of a row's meaning. A run's hash holds it, so that old rows are never read as new."""

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of a run.

    A score (split validation or test) belongs to one evaluated dataset. A run-level fact has split `train`
    and no dataset: `task`, `language` and `seen` are None, and `metric` is one of rank, active_parameters,
    total_parameters, examples_seen, share_without_features (0-1), seconds.

    Attributes:
        run: the run's hash.
        method: the method's name, in the paper's words ("FLix", "Compute-matched", "Param-matched").
        mixture: the training mixture's name.
        seed: the run's seed.
        split: "train", "validation" or "test".
        task: the evaluated task.
        language: the evaluated language's code.
        seen: "seen", "unseen_combination" or "unseen_<kind>".
        active: which features were on: "all", "none" (the frozen base), or one kind alone ("task").
        metric: the metric's name; scores are on 0-100.
        value: the number, finite.
        n: how many examples it was measured on.
        step: the optimiser step of the weights that it was measured on.

    Raises:
        UserError: a field of a wrong type or outside its choices, named.
    """

    run: str
    method: str
    mixture: str
    seed: int
    split: str
    task: str | None
    language: str | None
    seen: str | None
    active: str
    metric: str
    value: float
    n: int
    step: int

    def __post_init__(self):
        for name in ("run", "method", "mixture", "active", "metric"):
            self._require(name, isinstance(getattr(self, name), str) and getattr(self, name), "a text")
        for name in ("seed", "n", "step"):
            value = getattr(self, name)
            self._require(name, type(value) is int and value >= 0, "a whole number from 0")
        self._require("split", self.split in SPLITS, f"one of {', '.join(SPLITS)}")
        is_number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        self._require("value", is_number and math.isfinite(self.value), "a finite number")
        for name in ("task", "language", "seen"):
            value = getattr(self, name)
            if self.split == "train":
                self._require(name, value is None, "null for a run-level fact")
            else:
                self._require(name, isinstance(value, str) and value, "a text")
        if self.seen is not None:
            known = self.seen == "seen" or self.seen.startswith("unseen_")
            self._require("seen", known, "seen, unseen_combination or unseen_<kind>")

    def _require(self, name: str, valid: object, expected: str) -> None:
        if not valid:
            raise UserError(f"results row: {name} is {getattr(self, name)!r}, expected {expected}")


def selecting(rows: Iterable[Row]) -> list[Row]:
    """Return the scores of the metrics that select checkpoints: one score for each dataset.

    A task's selecting metric is that of its first row.
    """
    metrics: dict[str, str] = {}
    return [row for row in rows if row.task and metrics.setdefault(row.task, row.metric) == row.metric]


def validations(rows: Iterable[Row]) -> dict[int, dict[str, float]]:
    """Step -> task -> the task's validation score, a macro average over languages. `rows` are one run's."""
    found: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in selecting(rows):
        if row.split == "validation":
            found[row.step][row.task].append(row.value)
    return {step: {task: fmean(values) for task, values in tasks.items()} for step, tasks in found.items()}


def macro_averages(rows: Iterable[Row]) -> dict[tuple[str, str, str], float]:
    """(active, task, seen) -> the macro average over languages of one evaluation's selecting scores."""
    found = defaultdict(list)
    for row in selecting(rows):
        found[row.active, row.task, row.seen].append(row.value)
    return {key: fmean(values) for key, values in found.items()}


def mean_key(prefix: str, task: str | None = None, seen: str = "seen") -> str:
    """Name a macro average, in the loggers and where a checkpoint is selected.

    Args:
        prefix: `val`, `test`, or `test_<control>`.
        task: the task whose languages are averaged; None for the average over tasks.
        seen: as in a row.
    """
    return "/".join(filter(None, (prefix, task, "mean"))) + ("" if seen == "seen" else f"_{seen}")


_FIELDS = {field.name for field in fields(Row)}


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write all `rows` as JSON lines, whole or not at all.

    Raises:
        UserError: the file cannot be written; an earlier one is then untouched.
    """
    write_atomic(path, "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows))


def read(path: Path) -> list[Row]:
    """Read the rows of one run.

    Raises:
        UserError: the file cannot be read, or a line is not a row, naming the file and the line.
    """
    try:
        return [_row(place, record) for place, record in read_objects(path)]
    except UserError as error:
        raise UserError(f"{error}; delete the file to do the run again") from error


def _row(place: str, record: dict[str, Any]) -> Row:
    if record.keys() != _FIELDS:
        differing = ", ".join(sorted(record.keys() ^ _FIELDS))
        raise UserError(f"{place}: keys missing or unknown: {differing}")
    try:
        return Row(**record)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
