"""What a config comes to before anything is loaded: its data, its ranks, and the hash of its result."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from flix_lightning import models
from flix_lightning.data.layout import Layout
from flix_lightning.data.mixture import Mixture, NothingThere
from flix_lightning.data.source import open_layout
from flix_lightning.errors import UserError
from flix_lightning.features import FeatureDropout, FeatureSpace, resolve_ranks
from flix_lightning.results import SCHEMA
from flix_lightning.runs import RunFolder, run_id
from flix_lightning.tasks import get_task
from flix_lightning.tracking import TrackedRun

SELECTIONS = ("task", "average")
VOCABULARIES = ("all", "data")

#: Whole numbers of the config and the least that each may be; numbers above 0; those that may be null.
_LEAST = {
    "seed": 0,
    "optimizer.warmup_steps": 0,
    "evaluation.every": 1,
    "evaluation.batch_size": 1,
    "evaluation.validation_cap": 1,
    "evaluation.test_cap": 1,
    "trainer.threads": 0,
    "trainer.max_steps": 1,
    "trainer.batch_size": 1,
    "trainer.micro_batch_size": 1,
}
_ABOVE_0 = ("optimizer.learning_rate", "trainer.gradient_clip_val")
_NULLABLE = ("evaluation.validation_cap", "evaluation.test_cap", "trainer.gradient_clip_val")

#: Settings of the trainer that leave a run's result as it is, up to rounding. Precision does not: bfloat16
#: rounds what float32 keeps, while a recomputed or compiled layer does the same arithmetic in the same type.
_DEVICE = (
    "accelerator",
    "devices",
    "strategy",
    "threads",
    "micro_batch_size",
    "progress",
    "activation_checkpointing",
    "compile",
)
_YES_OR_NO = ("evaluation.test", "trainer.activation_checkpointing", "trainer.compile")


@dataclass(frozen=True)
class Plan:
    """What a config comes to, before anything is loaded or trained.

    Attributes:
        cfg: the composed config.
        layout, mixture: the data and what of it is trained and evaluated.
        pretrained: the base model, as `flix_lightning.models.load` takes it.
        ranks: "kind:name" -> rank of every feature that is trained.
        folder: where the run lives, by the hash of all that decides its result.
    """

    cfg: DictConfig
    layout: Layout
    mixture: Mixture
    pretrained: str
    ranks: dict[str, int]
    folder: RunFolder

    @property
    def tracked(self) -> TrackedRun:
        """What the loggers are told."""
        return TrackedRun(
            self.folder, plain(self.cfg), self.cfg.flix.name, self.mixture.name, tuple(self.cfg.tables)
        )


def plan(cfg: DictConfig) -> Plan:
    """Resolve a composed config against its data and base model.

    Raises:
        UserError: a value out of its choices, data or a base that is not there, ranks that make no method.
    """
    _check_values(cfg)
    layout = open_layout(given_or_made(cfg.data.root), Path(cfg.output) / "data")
    mixture = Mixture.resolve(cfg.mixture, layout, cfg.data.allow_missing)
    table = OmegaConf.to_container(cfg.flix.ranks, resolve=True)
    kinds = dict.fromkeys([*table, *mixture.ranks])  # a word for a rank is worked out from the mixture's
    ranks = resolve_ranks(table, mixture.trained_attributes(layout, kinds), mixture.ranks)
    FeatureSpace(ranks), FeatureDropout(cfg.seed, plain(cfg.flix.dropout))
    _check_kinds(cfg, table)
    pretrained = str(given_or_made(cfg.model.pretrained))
    name = f"{cfg.flix.name.lower()}-{mixture.name}-seed{cfg.seed}"
    id = run_id(_deciding(cfg, layout, mixture, pretrained, ranks))
    folder = RunFolder(Path(cfg.output) / "runs" / f"{name}-{id}")
    return Plan(cfg, layout, mixture, pretrained, ranks, folder)


def given_or_made(value: str | DictConfig) -> Any:
    """A value as the config says it, or as the call in the config returns it."""
    return value if isinstance(value, str) else instantiate(value)


def plan_all(cfgs: Iterable[DictConfig]) -> tuple[list[Plan], list[str]]:
    """Plan the runs of a sweep, and name the mixtures that the data holds nothing of, where it may lack some.

    Raises:
        UserError: as `plan`.
    """
    plans, left_out = [], {}
    for cfg in cfgs:
        try:
            plans.append(plan(cfg))
        except NothingThere:
            left_out[cfg.mixture.name] = None
    return plans, list(left_out)


def left_out_note(left_out: Sequence[str]) -> tuple[str, ...]:
    """What to say of the mixtures that `plan_all` left out: one line, or nothing."""
    return (f"The data holds nothing of, so left out: {', '.join(left_out)}.",) if left_out else ()


def _check_values(cfg: DictConfig) -> None:
    if cfg.evaluation.selection not in SELECTIONS:
        raise UserError(
            f"evaluation.selection is {cfg.evaluation.selection!r}; choices: {', '.join(SELECTIONS)}"
        )
    if cfg.model.vocabulary not in VOCABULARIES:
        raise UserError(f"model.vocabulary is {cfg.model.vocabulary!r}; choices: {', '.join(VOCABULARIES)}")
    for key in _YES_OR_NO:
        if type(value := OmegaConf.select(cfg, key)) is not bool:
            raise UserError(f"{key} is {value!r}; true or false is needed")
    for key in _ABOVE_0:
        value = OmegaConf.select(cfg, key)
        valid = type(value) in (int, float) and 0 < value < math.inf
        if not (valid or (value is None and key in _NULLABLE)):
            raise UserError(f"{key} is {value!r}; a number above 0 is needed")
    for key, least in _LEAST.items():
        value = OmegaConf.select(cfg, key)
        valid = type(value) is int and value >= least
        if not (valid or (value is None and key in _NULLABLE)):
            raise UserError(f"{key} is {value!r}; a whole number from {least} is needed")


def _check_kinds(cfg: DictConfig, kinds: Mapping[str, Any]) -> None:
    """A kind that is misspelt would be left out without a word."""
    rates, controls = plain(cfg.flix.dropout), plain(cfg.flix.controls)
    if not isinstance(controls, list) or not all(isinstance(control, list) for control in controls):
        raise UserError(f"flix.controls is {controls!r}; a list of lists of kinds is needed, as [[task]]")
    named = {
        "flix.dropout": rates if isinstance(rates, Mapping) else [],
        "flix.controls": [kind for control in controls for kind in control],
    }
    for key, found in named.items():
        if unknown := [kind for kind in found if kind not in kinds]:
            raise UserError(f"{key} names the kind {unknown[0]!r}; flix.ranks has {', '.join(kinds)}")


def plain(node: Any) -> Any:
    """Turn a part of a config into plain data."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _deciding(
    cfg: DictConfig, layout: Layout, mixture: Mixture, pretrained: str, ranks: Mapping[str, int]
) -> dict[str, Any]:
    """All that decides a run's result, and nothing that does not."""
    datasets = [*mixture.train, *mixture.evaluate]
    base = models.fingerprint(pretrained, cfg.model.revision)
    if cfg.model.vocabulary != "all":  # the files, below, say which tokens it has then
        base += f" with the vocabulary of the {cfg.model.vocabulary}"
    return {
        "schema": SCHEMA,
        "base": base,
        "model": {key: cfg.model[key] for key in ("dtype", "targets")},
        "files": layout.fingerprint(mixture.paths(layout)),
        "datasets": [len(mixture.train), [dataset.attributes for dataset in datasets]],
        "sampling": [str(mixture.temperature), mixture.cap, mixture.report],
        "tasks": [asdict(get_task(name)) for name in sorted({one.task for one in datasets})],
        "lengths": [cfg.data.max_input_length, cfg.data.max_target_length],
        "ranks": dict(ranks),
        "dropout": plain(cfg.flix.dropout),
        "controls": plain(cfg.flix.controls),
        "trainer": {key: value for key, value in plain(cfg.trainer).items() if key not in _DEVICE},
        "optimizer": plain(cfg.optimizer),
        "evaluation": {k: v for k, v in plain(cfg.evaluation).items() if k != "batch_size"},
        "seed": cfg.seed,
    }
