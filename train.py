"""Train FLix, or any method that is a table of ranks: `python train.py [group=choice] [key=value]`.

`python train.py --help` lists the groups and keys; -m sweeps (`-m flix.dropout=0.0,0.3,0.5,0.7`).
"""

import sys

from flix_lightning.common.cli import hydra_main, is_multirun
from flix_lightning.common.errors import UserError
from flix_lightning.reports import sweeps
from flix_lightning.runs.lock import RunBusy


def main(cfg):
    """Do one run; return the mean validation score of its chosen checkpoints."""
    # Here, so that --help and mistakes in the command are quick.
    from flix_lightning.data.mixture import NothingThere
    from flix_lightning.training.train import train

    if is_multirun() and cfg.trainer.devices != 1:
        raise UserError(
            f"trainer.devices is {cfg.trainer.devices!r} in a multirun: a run on several devices starts "
            "itself once for each, which a sweep cannot; do its runs one by one, without -m"
        )
    try:
        return train(cfg)
    except (RunBusy, NothingThere) as reason:
        if not is_multirun():
            raise
        print(f"Skipped, {reason}", file=sys.stderr)
        return None


if __name__ == "__main__":
    sweeps.register(sys.argv)
    hydra_main(main)
