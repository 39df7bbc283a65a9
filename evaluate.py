"""Score a finished run on any test data in XTREME-UP's layout, and keep its predictions in XTREME-UP's form.

`python evaluate.py run=outputs/runs/RUN [data.root=FOLDER_OR_ARCHIVE]`; finished datasets are not done again.
"""

from flix_lightning.common.cli import hydra_main


def main(cfg):
    """Evaluate what the config asks for, and print its table."""
    from rich.console import Console

    from flix_lightning.inference import evaluate
    from flix_lightning.reports.tables import evaluation
    from flix_lightning.runs import (
        rows as results,  # here, so that --help and mistakes in the command are quick
    )

    folder = evaluate.evaluate(cfg)
    evaluation.table(results.read(folder.results)).terminal(Console())
    print(f"Predictions: {folder.path / 'predictions'}; rows: {folder.results}")


if __name__ == "__main__":
    hydra_main(main, "evaluate")
