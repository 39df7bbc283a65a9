"""Made-up runs, and made-up examples behind their scores."""

from types import SimpleNamespace

import numpy as np
from omegaconf import OmegaConf

from flix_lightning.runs.rows import Row
from flix_lightning.runs.run import Run

EVALUATION = {"selection": "task", "validation_cap": 10, "test": True}


class MadeUp(Run):
    """A run that has no folder, and so no predictions."""

    finished = True

    def predictions(self, row):
        return []

    def targets(self, row):
        return ("",) * row.n


def alike(row):
    """Examples that all have the row's own score, so that resampling them changes nothing."""
    return np.array([[row.value / 100, 1.0]] * row.n)


def made_up(rows, counts=alike, **settings):
    """A run that left these rows, with these counts of a row's examples and these settings."""
    first = rows[0]
    cfg = {
        "flix": {"name": first.method},
        "mixture": {"name": first.mixture, "train": []},
        "seed": first.seed,
    }
    run = MadeUp(OmegaConf.merge({"evaluation": EVALUATION}, cfg, settings), f"made-up/{first.run}")
    run.rows, run.counts = rows, counts
    run.mixture = SimpleNamespace(
        name=first.mixture,
        train=[
            SimpleNamespace(task=entry.task, language=language)
            for entry in run.cfg.mixture.train
            for language in entry.languages
        ],
    )
    return run


def run(settings, scores, *, share=0.0):
    """A run of FLix or LoRA; `scores` maps (split, task, language, step) to a value.

    A fifth part of a key says how the dataset was seen, if it was not trained on.
    """
    method, mixture, seed = settings["flix"]["name"], settings["mixture"]["name"], settings["seed"]
    name = f"{method}-{mixture}-{seed}-{settings['flix'].get('dropout')}-{settings['flix'].get('ranks')}"
    common = {"run": name, "method": method, "mixture": mixture, "seed": seed, "active": "all", "n": 10}
    nothing = {"task": None, "language": None, "seen": None, "step": 300}
    rows = [Row(**common, **nothing, split="train", metric="share_without_features", value=share)]
    for (split, task, language, step, *seen), value in scores.items():
        place = {"split": split, "task": task, "language": language, "step": step}
        rows.append(Row(**common, **place, seen=[*seen, "seen"][0], metric="exact_match", value=value))
    return made_up(rows, **settings)
