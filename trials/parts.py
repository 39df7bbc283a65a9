"""Score runs with all features, and with each kind of features alone: python -m trials.parts RUN …

RUN is the folder of a finished run. The scores are of the checkpoints that test the run, on the training and
the validation data of the datasets that it was trained on. What a kind knows of the training data alone, it
learned by heart. Test data is not read.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from statistics import fmean

from rich.console import Console
from rich.table import Table

from flix_lightning.common import cli
from flix_lightning.common.errors import UserError
from flix_lightning.inference import Predictor
from flix_lightning.runs.run import Run
from flix_lightning.tasks.metrics import score_texts


def scores(run: Run, model: Predictor, kinds: Collection[str], split: str) -> dict[str, float]:
    """Return task -> its macro average over languages on a split, with the features of these kinds alone."""
    found = defaultdict(list)
    for dataset in run.mixture.datasets("validation").values():
        examples = list(run.layout.read(dataset.task, split, dataset.language))
        asked = [model.requests.from_example(dataset, example) for example in examples]
        asked = [
            replace(one, features=[f for f in one.features if f.partition(":")[0] in kinds]) for one in asked
        ]
        targets = [example.target for example in examples]
        metric = run.tasks.get(dataset.task).metric
        found[dataset.task].append(score_texts(metric, model.answer(asked), targets))
    return {task: fmean(values) for task, values in found.items()}


def main(folders: list[str]) -> int:
    """Print a table of each run; raise UserError if none is given."""
    if not folders:
        raise UserError("no RUN is given: the folder of a finished run")
    for run in map(Run.open, folders):
        model = Predictor(run)
        parts = {"all features": run.kinds}
        if len(run.kinds) > 1:
            parts |= {f"{kind} alone": [kind] for kind in run.kinds}
        for split in ("train", "validation"):
            lines = {name: scores(run, model, kinds, split) for name, kinds in parts.items()}
            table = Table(split, *lines["all features"], "average", title=run.name)
            for name, found in lines.items():
                table.add_row(name, *(f"{value:.1f}" for value in (*found.values(), fmean(found.values()))))
            Console().print(table)
    return 0


if __name__ == "__main__":
    cli.plain_main(main, __doc__)
