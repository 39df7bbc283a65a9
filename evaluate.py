"""Score a finished run on any data in XTREME-UP's layout, and keep its predictions in XTREME-UP's form.

`python evaluate.py run=outputs/runs/RUN [data.root=FOLDER_OR_ARCHIVE]`; finished datasets are not done again.
"""

from flix_lightning.common.cli import hydra_main


def main(cfg):
    """Evaluate what the config asks for; print and save its table."""
    # Here, so that --help and mistakes in the command are quick.
    from rich.console import Console

    from flix_lightning.inference.evaluate import evaluate
    from flix_lightning.reports import render
    from flix_lightning.reports.tables import evaluation
    from flix_lightning.runs import rows

    folder = evaluate(cfg)
    table = evaluation.table(rows.read(folder / "results.jsonl"))
    if not (folder / "scores.md").exists():
        render.save(table, folder, "scores")
    table.terminal(Console())
    print(f"Predictions: {folder / 'predictions'}; rows: {folder / 'results.jsonl'}")


if __name__ == "__main__":
    hydra_main(main, "evaluate")
