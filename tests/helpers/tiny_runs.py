"""Runs of the tiny base on the tiny data (conftest.py), done in this process, and what they leave."""

import json

import torch

from flix_lightning.common import cli
from flix_lightning.runs.run import Run
from flix_lightning.training import train as experiment


def config(overrides):
    """Compose one config."""
    (cfg,) = cli.sweep_configs(overrides)
    return cfg


def do(overrides, output):
    """Do a run; return its folder."""
    cfg = config([f"output={output}", *overrides])
    experiment.train(cfg)
    return Run.resolve(cfg).path


def json_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows(folder, **fields):
    """The rows of results.jsonl that have these values."""
    found = json_lines(folder / "results.jsonl")
    return [row for row in found if all(row[key] == value for key, value in fields.items())]


def fact(folder, metric):
    (row,) = rows(folder, split="train", metric=metric)
    return row["value"]


def checkpoint(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", map_location="cpu", weights_only=True)


def predictions(folder):
    """Every file of predictions, by its path below the run's folder."""
    files = sorted((folder / "predictions").rglob("*.jsonl"))
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}
