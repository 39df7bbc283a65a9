"""Every finished run of a folder: its facts, its learning curves, its config."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from flix_lightning.reports.chart import Curves, means
from flix_lightning.runs import rows as results
from flix_lightning.runs.rows import Row
from flix_lightning.runs.run import Run

STEP = "optimiser step"
LOSS = "train/loss"

Points = list[tuple[float, float]]


def finished_runs(root: Path) -> list[Run]:
    """Return the finished runs below `root`, by name.

    Raises:
        UserError: one of them is not as it was written.
    """
    return [Run.open(path.parent) for path in sorted(root.glob("*/results.jsonl"))]


def curves(run: Run) -> list[Curves]:
    """Chart a run's validation scores by task and its training loss, as far as there are any."""
    return _charts({"Validation": _by_task(run.rows)}, {"": run.logged(LOSS)})


def learning_curves(runs: Iterable[Run]) -> dict[str, list[Curves]]:
    """Mixture -> its charts, a line a method: validation by task, and training loss; means over seeds."""
    mixtures: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        mixtures[run.rows[0].mixture][run.rows[0].method].append(run)
    found = {}
    for mixture, methods in mixtures.items():
        losses = {method: _mean([run.logged(LOSS) for run in alike]) for method, alike in methods.items()}
        panels: dict[str, dict[str, Points]] = defaultdict(dict)
        for method, alike in methods.items():
            by_task = [_by_task(run.rows) for run in alike]
            for task in by_task[0]:
                panels[task][method] = _mean([scores[task] for scores in by_task])
        found[mixture] = _charts(panels, losses)
    return found


def _charts(validation: Mapping[str, Mapping[str, Points]], losses: Mapping[str, Points]) -> list[Curves]:
    charts = [Curves(title, STEP, "validation score, 0-100", lines) for title, lines in validation.items()]
    if any(losses.values()):
        charts.append(Curves("Training loss", STEP, "loss a target token", losses))
    return charts


def _by_task(rows: Iterable[Row]) -> dict[str, Points]:
    found: dict[str, Points] = defaultdict(list)
    for step, tasks in sorted(results.validations(rows).items()):
        for task, score in tasks.items():
            found[task].append((step, score))
    return found


def _mean(lines: Iterable[Points]) -> Points:
    """The mean line of several runs."""
    found: dict[float, list[float]] = defaultdict(list)
    for x, y in (point for line in lines for point in line):
        found[x].append(y)
    return means(sorted(found.items()))
