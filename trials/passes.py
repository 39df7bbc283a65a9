"""How often a run reads each training example: python -m trials.passes [KEY=VALUE …], as for train.py.

Prints, for each task of the mixture, its datasets, their examples, and the passes over them: what all steps
draw from a dataset, by its mixing rate, divided by its examples. The paper's, with XTREME-UP in a folder:

    python -m trials.passes data=xtreme_up data.root=FOLDER trainer.max_steps=2000 trainer.batch_size=512
"""

from collections import defaultdict

from rich.console import Console
from rich.table import Table

from flix_lightning.common import cli
from flix_lightning.data.batches import mixing_rates
from flix_lightning.runs.run import Run


def passes(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Return, for each task, (examples, passes) of each of its training datasets."""
    trained, mixture = run.mixture.train, run.mixture
    sizes = [sum(1 for _ in run.layout.read(one.task, "train", one.language)) for one in trained]
    rates = mixing_rates(sizes, mixture.temperature, mixture.cap)
    drawn = run.cfg.trainer.max_steps * run.cfg.trainer.batch_size
    found = defaultdict(list)
    for dataset, size, rate in zip(trained, sizes, rates, strict=True):
        found[dataset.task].append((size, drawn * rate / size))
    return found


def main(arguments: list[str]) -> int:
    """Print the table of each run."""
    for run in map(Run.resolve, cli.sweep_configs(arguments)):
        table = Table("task", "datasets", "examples each", "passes", title=run.name)
        for task, found in passes(run).items():
            sizes, times = zip(*found, strict=True)
            ranges = (f"{min(sizes)} to {max(sizes)}", f"{min(times):.1f} to {max(times):.1f}")
            table.add_row(task, str(len(found)), *ranges)
        Console().print(table)
    return 0


if __name__ == "__main__":
    cli.plain_main(main, __doc__)
