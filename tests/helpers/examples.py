"""Made-up runs, and made-up examples behind their scores."""

import numpy as np
from omegaconf import OmegaConf

from flix_lightning.runs.rows import Row
from flix_lightning.runs.run import Run


def alike(row):
    """Examples that all have the row's own score, so that resampling them changes nothing."""
    return np.array([[row.value / 100, 1.0]] * row.n)


def made_up(settings, rows, counts=alike):
    """A run that left these rows, with these counts of a row's examples."""
    run = Run(OmegaConf.create(settings), f"made-up/{rows[0].run}")
    run.rows, run.counts = rows, counts
    return run


def run(settings, scores, *, share=0.0):
    """A run of FLix or LoRA; `scores` maps (split, task, language, step) to a value.

    A fifth part of a key says how the dataset was seen, if it was not trained on.
    """
    name = f"{settings['flix']['name']}-{settings['mixture']['name']}"
    common = {
        "run": f"{name}-{settings['seed']}-{settings['flix'].get('dropout')}-{settings['flix'].get('ranks')}",
        "method": settings["flix"]["name"],
        "mixture": settings["mixture"]["name"],
        "seed": settings["seed"],
        "active": "all",
        "n": 10,
    }
    rows = [
        Row(
            **common,
            split=split,
            task=task,
            language=language,
            seen=seen[0] if seen else "seen",
            metric="exact_match",
            value=value,
            step=step,
        )
        for (split, task, language, step, *seen), value in scores.items()
    ]
    nothing = {"task": None, "language": None, "seen": None}
    fact = Row(**common, split="train", metric="share_without_features", value=share, step=300, **nothing)
    return made_up(settings, [fact, *rows])
