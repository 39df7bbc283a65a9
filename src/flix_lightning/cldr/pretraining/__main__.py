"""Make the base model: `python -m flix_lightning.cldr.pretraining --steps 8000 --out outputs/base`."""

import argparse
from pathlib import Path

import torch

from flix_lightning.cldr.pretraining.batches import BATCH
from flix_lightning.cldr.pretraining.pretrain import pretrain
from flix_lightning.common.cli import errors_as_lines


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m flix_lightning.cldr.pretraining", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model and its checkpoint")
    parser.add_argument("--steps", type=int, required=True, help=f"updates of {BATCH} examples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    if min(options.steps, options.threads) < 1:
        parser.error("--steps and --threads: whole numbers from 1 are needed")
    torch.set_num_threads(options.threads)
    pretrain(options.out, options.steps, options.seed)


if __name__ == "__main__":
    with errors_as_lines():
        main()
