"""Runs of seconds, of the built-in model on the built-in benchmark, for trials that need many runs."""

import shutil
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

#: Overrides of one run: four steps, two validations, one example of each dataset and split to evaluate.
SMALL = [
    "mixture=joint_5",
    "data.root.train=8",
    "data.root.validation=1",
    "data.root.test=1",
    "data.max_input_length=64",
    "data.max_target_length=8",
    "trainer.max_steps=4",
    "trainer.batch_size=8",
    "trainer.micro_batch_size=4",
    "trainer.progress=lines",
    "evaluation.every=2",
    "evaluation.batch_size=4",
    "flix.dropout=0.3",
]


def make_output(given: Path | None, name: str) -> Path:
    """Make a given folder, or empty `outputs/<name>`; exit if a given folder exists already."""
    folder = (given or REPOSITORY / "outputs" / name).resolve()
    if given is None:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        sys.exit(f"{folder}: {error.strerror}; give a new folder")
    return folder
