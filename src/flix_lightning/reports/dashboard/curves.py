"""Learning curves of finished runs."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from flix_lightning.reports.chart import Curves, means
from flix_lightning.reports.columns import METHODS
from flix_lightning.runs.rows import validations
from flix_lightning.runs.run import Run

Points = list[tuple[float, float]]


def curves(run: Run) -> list[Curves]:
    """A run's validation scores by task and its training loss, as far as there are any."""
    return _charts({"Validation": _by_task(run)}, {"": run.logged("train/loss")})


def learning_curves(runs: Iterable[Run]) -> dict[str, list[Curves]]:
    """Mixture -> its charts, a line a method: validation by task, and training loss; means over seeds."""
    mixtures: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=lambda run: [*METHODS, run.method].index(run.method)):
        mixtures[run.cfg.mixture.name][run.method].append(run)
    found = {}
    for mixture, methods in mixtures.items():
        losses, panels = {}, defaultdict(dict)
        for method, alike in methods.items():
            losses[method] = _mean(run.logged("train/loss") for run in alike)
            by_task = [_by_task(run) for run in alike]
            for task in by_task[0]:
                panels[task][method] = _mean(scores[task] for scores in by_task)
        found[mixture] = _charts(panels, losses)
    return found


def _charts(validation: Mapping[str, Mapping[str, Points]], losses: Mapping[str, Points]) -> list[Curves]:
    step = "optimizer step"
    charts = [Curves(title, step, "validation score, 0-100", lines) for title, lines in validation.items()]
    return charts + (
        [Curves("Training loss", step, "loss a target token", losses)] if any(losses.values()) else []
    )


def _by_task(run: Run) -> dict[str, Points]:
    found: dict[str, Points] = defaultdict(list)
    for step, tasks in sorted(validations(run.rows).items()):
        for task, score in tasks.items():
            found[task].append((step, score))
    return found


def _mean(lines: Iterable[Points]) -> Points:
    """The mean line of several runs."""
    found: dict[float, list[float]] = defaultdict(list)
    for x, y in (point for line in lines for point in line):
        found[x].append(y)
    return means(sorted(found.items()))
