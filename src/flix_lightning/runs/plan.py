"""What a config comes to before anything is loaded: its data, its ranks, and the hash of its result."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from flix_lightning.adapter.features import FeatureDropout, FeatureSpace, resolve_ranks
from flix_lightning.common import settings
from flix_lightning.common.errors import UserError
from flix_lightning.common.names import check_name, text_keys
from flix_lightning.data.archive import open_layout
from flix_lightning.data.layout import Layout
from flix_lightning.data.mixture import Mixture, NothingThere
from flix_lightning.models import base as models
from flix_lightning.runs.folder import RunFolder, run_id
from flix_lightning.runs.rows import SCHEMA
from flix_lightning.runs.start import Start
from flix_lightning.tasks.definitions import get_task
from flix_lightning.training.loggers import TrackedRun

#: What each setting of `conf/train.yaml` may be.
SETTINGS = {
    "seed": settings.integer(0),
    "output": settings.TEXT,
    "tables": settings.list_of(settings.NAME, "a list of names"),
    "optimizer.learning_rate": settings.POSITIVE,
    "optimizer.warmup_steps": settings.integer(0),
    "optimizer.lazy": settings.BOOLEAN,
    "start.run": settings.nullable(settings.TEXT),
    "start.checkpoint": settings.TEXT,
    "start.train": settings.choice("new", "all"),
    "evaluation.every": settings.integer(1),
    "evaluation.batch_size": settings.integer(1, 2**20),
    "evaluation.validation_cap": settings.nullable(settings.integer(1)),
    "evaluation.test": settings.BOOLEAN,
    "evaluation.test_cap": settings.nullable(settings.integer(1)),
    "evaluation.selection": settings.choice("task", "average"),
    "trainer.accelerator": settings.TEXT,
    "trainer.devices": settings.ANY,  # Lightning has a way of its own with the next three
    "trainer.strategy": settings.ANY,
    "trainer.precision": settings.ANY,
    "trainer.threads": settings.integer(0, 1024),
    "trainer.progress": settings.choice("bar", "lines"),
    "trainer.max_steps": settings.integer(1),
    "trainer.batch_size": settings.integer(1, 2**20),
    "trainer.micro_batch_size": settings.integer(1, 2**20),
    "trainer.gradient_clip_val": settings.nullable(settings.POSITIVE),
    "trainer.activation_checkpointing": settings.BOOLEAN,
    "trainer.compile": settings.BOOLEAN,
    "model.pretrained": settings.PATH_OR_CALL,
    "model.revision": settings.TEXT,
    "model.dtype": settings.TEXT,
    "model.targets": settings.TEXT,
    "model.vocabulary": settings.choice("all", "data"),
    "data.name": settings.NAME,
    "data.root": settings.PATH_OR_CALL,
    "data.allow_missing": settings.BOOLEAN,
    "data.max_input_length": settings.integer(1, 2**20),
    "data.max_target_length": settings.integer(1, 2**20),
    "data.samples": settings.list_of(settings.NAME, "a list of tasks"),
    "data.feature_dropout": settings.ANY,  # where flix.dropout is this, it is checked
    "flix.name": settings.NAME,
    "flix.ranks": settings.MAPPING,
    "flix.learning_rate": settings.ANY,  # the same for optimizer.learning_rate
    "flix.dropout": settings.ANY,  # by FeatureDropout
    "flix.controls": settings.list_of(
        settings.list_of(settings.TEXT, "a list of kinds"), "a list of lists of kinds, as [[task]],"
    ),
    "mixture": settings.MAPPING,  # by Mixture.resolve
    "logger": settings.nullable(settings.MAPPING),  # by each logger
}

#: What a config may call, for the folder of its data or its base, or for its strategy.
MAKERS = (
    "flix_lightning.cldr.benchmark.ensure",
    "flix_lightning.models.gguf.ensure",
    "flix_lightning.models.fsdp.ShardedStrategy",
)

#: Names that the configs of older runs have for some of them.
_OLD_MAKERS = {
    "flix_lightning.packaged.ensure": "flix_lightning.models.gguf.ensure",
    "flix_lightning.sharded.ShardedStrategy": "flix_lightning.models.fsdp.ShardedStrategy",
}

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


@dataclass(frozen=True)
class Plan:
    """What a config comes to, before anything is loaded or trained.

    Attributes:
        cfg: the composed config.
        layout, mixture: the data and what of it is trained and evaluated.
        pretrained: the base model, as `flix_lightning.models.base.load` takes it.
        ranks: "kind:name" -> rank of every feature that is trained, or was in the run that it starts from.
        start: the run that it starts from, if any.
        folder: where the run lives, by the hash of all that decides its result.
    """

    cfg: DictConfig
    layout: Layout
    mixture: Mixture
    pretrained: str
    ranks: dict[str, int]
    start: Start | None
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
    settings.check(cfg, SETTINGS)
    layout = open_layout(given_or_made(cfg.data.root), Path(cfg.output) / "data")
    mixture = Mixture.resolve(cfg.mixture, layout, cfg.data.allow_missing)
    table = text_keys("flix.ranks", plain(cfg.flix.ranks))
    kinds = [*table, *text_keys("mixture.ranks", mixture.ranks)]  # words for ranks refer to the mixture's
    ranks = resolve_ranks(table, mixture.trained_attributes(layout, kinds), mixture.ranks)
    pretrained = str(given_or_made(cfg.model.pretrained))
    if start := Start.resolve(cfg.start):
        _check_base(start, pretrained, cfg.model.revision)
        ranks = start.extended(ranks)
    FeatureSpace(ranks), FeatureDropout(cfg.seed, plain(cfg.flix.dropout))
    _check_kinds(cfg, table)
    name = f"{cfg.flix.name.lower()}-{mixture.name}-seed{cfg.seed}"
    id = run_id(_deciding(cfg, layout, mixture, pretrained, ranks, start))
    folder = RunFolder(Path(cfg.output) / "runs" / f"{name}-{id}")
    return Plan(cfg, layout, mixture, pretrained, ranks, start, folder)


def given_or_made(value: Any) -> Any:
    """A value as the config says it, or as the call in the config returns it.

    Raises:
        UserError: a call of anything but MAKERS: a config may come with a run of someone else's.
    """
    if not OmegaConf.is_dict(value):
        return value
    target = _OLD_MAKERS.get(value.get("_target_"), value.get("_target_"))
    if target not in MAKERS:
        raise UserError(f"_target_ is {target!r}; one of {', '.join(MAKERS)} is needed")
    return instantiate({**value, "_target_": target}, _recursive_=False)


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


def _check_base(start: Start, pretrained: str, revision: str) -> None:
    earlier = str(given_or_made(start.model.pretrained))
    if models.fingerprint(earlier, start.model.revision) != models.fingerprint(pretrained, revision):
        raise UserError(
            f"start.run={start.run} was trained on model.pretrained={earlier}, this run on {pretrained}"
        )


def _check_kinds(cfg: DictConfig, kinds: Mapping[str, Any]) -> None:
    """A kind that is misspelt would be left out without a word."""
    rates, controls = plain(cfg.flix.dropout), plain(cfg.flix.controls)
    named = {
        "flix.dropout": text_keys("flix.dropout", rates) if isinstance(rates, Mapping) else [],
        "flix.controls": [check_name("flix.controls", kind) for control in controls for kind in control],
    }
    for key, found in named.items():
        if unknown := [kind for kind in found if kind not in kinds]:
            raise UserError(f"{key} names the kind {unknown[0]!r}; flix.ranks has {', '.join(kinds)}")
    if twice := [one for one, count in Counter(map(frozenset, controls)).items() if count > 1]:
        raise UserError(f"flix.controls names {sorted(twice[0])} more than once; once is enough")


def plain(node: Any) -> Any:
    """Turn a part of a config into plain data."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _deciding(
    cfg: DictConfig,
    layout: Layout,
    mixture: Mixture,
    pretrained: str,
    ranks: Mapping[str, int],
    start: Start | None,
) -> dict[str, Any]:
    """All that decides a run's result, and nothing that does not."""
    datasets = [*mixture.train, *mixture.evaluate]
    base = models.fingerprint(pretrained, cfg.model.revision)
    if cfg.model.vocabulary != "all":  # the files, below, say which tokens it has then
        base += f" with the vocabulary of the {cfg.model.vocabulary}"
    # A run without `start` and `optimizer.lazy` is the one that it was before there were these keys.
    later = {"start": start.deciding} if start else {}
    return later | {
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
        "optimizer": {k: v for k, v in plain(cfg.optimizer).items() if (k, v) != ("lazy", False)},
        "evaluation": {k: v for k, v in plain(cfg.evaluation).items() if k != "batch_size"},
        "seed": cfg.seed,
    }
