"""The file of one dataset's predictions: JSON lines of (id, prediction, target)."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import write_atomic
from flix_lightning.data.jsonl import read_objects


class Prediction(NamedTuple):
    """What was predicted for one example, and what would have been right."""

    id: str
    prediction: str
    target: str


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write the file, whole or not at all; raises UserError if it cannot be written."""
    lines = (json.dumps(one._asdict(), ensure_ascii=False) + "\n" for one in predictions)
    write_atomic(path, "".join(lines))


def read_predictions(path: Path) -> list[Prediction]:
    """Read the file; raises UserError if it cannot be read, or holds something else."""
    try:
        return [Prediction(**line) for _, line in read_objects(path)]
    except (UserError, TypeError) as error:  # TypeError: other keys
        raise UserError(f"cannot read predictions {path}: {error}; do the run again") from error
