"""Answer lines of text by a finished run, each with whatever features it carries.

`python predict.py run=outputs/runs/RUN input=lines.jsonl [out=answers.jsonl] [explain=true]`; the same
command goes on where it was interrupted.
"""

import sys

from flix_lightning.common.cli import hydra_main


def main(cfg):
    """Write the predictions that the config asks for."""
    # Here, so that --help and mistakes in the command are quick.
    from flix_lightning.inference.predict import predict

    print(predict(cfg))


if __name__ == "__main__":
    sys.argv = ["explain=true" if one == "--explain" else one for one in sys.argv]
    hydra_main(main, "predict")
