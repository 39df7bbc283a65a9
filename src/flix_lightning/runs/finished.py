"""Finished runs, as tables read them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flix_lightning.runs import rows as results
from flix_lightning.runs.folder import RunFolder, read_predictions
from flix_lightning.runs.plan import Plan, plain
from flix_lightning.runs.rows import Row
from flix_lightning.tasks.metrics import METRICS


@dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
        settings: its resolved config.
        rows: its results.
        counts: a test row -> what each of its examples adds to the sums of its metric, `[examples, sums]`.
    """

    settings: Mapping[str, Any]
    rows: Sequence[Row]
    counts: Callable[[Row], NDArray[np.float64]]


def read(run: Plan) -> Finished:
    """Read what a run left behind.

    Raises:
        UserError: it is not there, or not as it was written.
    """
    # Kept, as FLix's are compared with those of every baseline.
    counts = cache(partial(_counts, run.folder))
    return Finished(plain(run.cfg), results.read(run.folder.results), counts)


def _counts(folder: RunFolder, row: Row) -> NDArray[np.float64]:
    predictions = read_predictions(folder.predictions(f"{row.split}-{row.active}", row.task, row.language))
    texts, targets = zip(*((one["prediction"], one["target"]) for one in predictions), strict=True)
    return METRICS[row.metric].counts(texts, targets)
