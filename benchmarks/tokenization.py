"""Time how long a run waits for its data, the first time and later: `python -m benchmarks.tokenization`."""

import argparse
import json
import logging
import random
import tempfile
import time
from pathlib import Path

from babel import Locale

from flix_lightning.data.datamodule import DataModule
from flix_lightning.data.layout import SPLITS, Layout
from flix_lightning.data.mixture import Mixture
from flix_lightning.data.tokenization import Tokenization
from flix_lightning.models import base as models


def write_data(root: Path, languages: list[str], lines: int) -> None:
    """Write `lines` lines of about 145 bytes for each language's training, and one for its evaluation."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnoprstuvwyz", k=rng.randint(2, 9))) for _ in range(5000)]
    for language in languages:
        for split in SPLITS:
            path = root / "semantic_parsing" / split / f"{language}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w") as file:
                for _ in range(lines if split == "train" else 1):
                    text, target = (" ".join(rng.choices(words, k=count)) for count in (12, 4))
                    file.write(json.dumps({"input": text, "target": f"[IN:A [SL:B {target} ] ]"}) + "\n")


def start(root: Path, languages: list[str]) -> float:
    """Prepare the data as a run does before its first step; return the seconds."""
    base = models.load("cldr-base", "main", "float32")
    began = time.perf_counter()
    layout, entry = Layout(root), [{"task": "semantic_parsing", "languages": languages}]
    ranks = {"task": 1, "language": 1}
    lists = {"train": entry, "evaluate": entry, "report": ["semantic_parsing"]}
    mixture = Mixture.resolve({"name": "large", "ranks": ranks, **lists}, layout)
    data = DataModule(
        layout, mixture, Tokenization(base.tokenizer, True, 128, 64), kinds=["task", "language"],
        batch_size=32, micro_batch_size=32, eval_batch_size=32, validation_cap=None, test_cap=None,
        max_steps=1, seed=0, cache_dir=root / "cache",
    )  # fmt: skip
    data.prepare_data()
    next(iter(data.train_dataloader()))
    return time.perf_counter() - began


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokenization", description=__doc__)
    parser.add_argument("--lines", type=int, default=200_000, help="training lines of each language (200000)")
    parser.add_argument("--languages", type=int, default=1, help="languages, at most 600 (1)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    languages = sorted(Locale("en").languages)[: options.languages]
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), languages, options.lines)
        for which in ("first", "second"):
            print(f"{which} start: {start(Path(folder), languages):.1f} s", flush=True)


if __name__ == "__main__":
    main()
