"""Train FLix, or any method that is a table of ranks: `python train.py [group=choice] [key=value]`.

`python train.py --help` lists the groups and keys; -m sweeps (`-m flix.dropout=0.0,0.3,0.5,0.7`).
"""

import sys

from flix_lightning.common.cli import hydra_main, is_multirun
from flix_lightning.reports import sweeps
from flix_lightning.runs.lock import RunBusy


def main(cfg):
    """Do one run and print its scores; return the mean validation score of its selected checkpoints."""
    # Here, so that --help and mistakes in the command are quick.
    from lightning.pytorch.utilities import rank_zero_only

    from flix_lightning.data.mixture import NothingThere
    from flix_lightning.runs.run import Run
    from flix_lightning.training.train import train

    try:
        score = train(cfg)
    except (RunBusy, NothingThere) as reason:
        if not is_multirun():
            raise
        print(f"Skipped, {reason}", file=sys.stderr)
        return None
    if rank_zero_only.rank == 0 and not is_multirun():
        print_scores(Run.resolve(cfg))
    return score


def print_scores(run):
    """Print where a finished run is and its test scores, or its validation scores if it has no test."""
    from rich.console import Console

    from flix_lightning.reports.tables import evaluation

    if tested := [row for row in run.rows if (row.split, row.active) == ("test", "all")]:
        evaluation.table(tested).terminal(Console())
    else:
        scores = [f"{task} {score:.1f}" for task, score in run.validation_scores().items()]
        print(f"Validation, macro averages over languages: {', '.join(scores)}")
    print(f"Run: {run.path}")
    for folder in sorted((run.path / "wandb").glob("offline-run-*"))[-1:]:
        print(f"W&B: `wandb sync {folder}` uploads it")


if __name__ == "__main__":
    sweeps.register(sys.argv)
    hydra_main(main)
