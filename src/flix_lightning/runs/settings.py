"""What each setting of `conf/train.yaml` may be, and what a config may call."""

from copy import copy
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from flix_lightning.common.errors import UserError
from flix_lightning.common.settings import (
    ANY,
    BOOLEAN,
    MAPPING,
    NAME,
    PATH_OR_CALL,
    POSITIVE,
    TEXT,
    Kind,
    PassedOn,
    Setting,
    choice,
    integer,
    list_of,
    nullable,
)

_RATIOS = Kind(
    "a mapping of kinds to numbers above 0, as {language: 0.25}",
    lambda value: MAPPING.accepts(value) and all(map(POSITIVE.accepts, value.values())),
)
_KINDS = list_of(list_of(TEXT, "a list of kinds"), "a list of lists of kinds, as [[task]],")

#: Precision decides a result: bfloat16 rounds what float32 keeps. A recomputed or compiled layer does the
#: same arithmetic in the same type, and micro-batches and devices only share the work.
SETTINGS = {
    "seed": Setting(integer(0)),
    "output": Setting(TEXT, decides=False),
    "tasks": Setting(nullable(MAPPING), hashed_as="tasks"),  # checked by Tasks.of
    "tables": Setting(list_of(NAME, "a list of names"), decides=False),
    "optimizer.learning_rate": Setting(POSITIVE),
    "optimizer.warmup_steps": Setting(integer(0)),
    "optimizer.lazy": Setting(BOOLEAN, neutral=False),
    "start.run": Setting(nullable(TEXT), hashed_as="start"),
    "start.checkpoint": Setting(TEXT, hashed_as="start"),
    "start.train": Setting(choice("new", "all"), hashed_as="start"),
    "evaluation.every": Setting(integer(1)),
    "evaluation.batch_size": Setting(integer(1, 2**20), decides=False),
    "evaluation.validation_cap": Setting(nullable(integer(1))),
    "evaluation.test": Setting(BOOLEAN),
    "evaluation.test_cap": Setting(nullable(integer(1))),
    "evaluation.selection": Setting(choice("task", "average")),
    "trainer.accelerator": Setting(TEXT, decides=False),
    "trainer.devices": Setting(ANY, decides=False),  # Lightning checks devices, strategy and precision
    "trainer.num_nodes": Setting(integer(1), decides=False),
    "trainer.strategy": Setting(ANY, decides=False),
    "trainer.precision": Setting(ANY),
    "trainer.threads": Setting(integer(0, 1024), decides=False),
    "trainer.progress": Setting(choice("bar", "lines"), decides=False),
    "trainer.max_steps": Setting(integer(1)),
    "trainer.batch_size": Setting(integer(1, 2**20)),
    "trainer.micro_batch_size": Setting(integer(1, 2**20), decides=False),
    "trainer.gradient_clip_val": Setting(nullable(POSITIVE)),
    "trainer.activation_checkpointing": Setting(BOOLEAN, decides=False),
    "trainer.compile": Setting(BOOLEAN, decides=False),
    "trainer.*": PassedOn(
        "lightning.Trainer",
        harmless=(
            "enable_progress_bar",
            "enable_model_summary",
            "log_every_n_steps",
            "profiler",
        ),
        reserved={
            "accumulate_grad_batches": "it follows from trainer.batch_size and trainer.micro_batch_size",
            "check_val_every_n_epoch": "give evaluation.every, in optimizer steps",
            "default_root_dir": "give output=FOLDER",
            "logger": "choose with logger=[…]",
            "max_epochs": "give trainer.max_steps",
            "min_epochs": "give trainer.max_steps",
            "num_sanity_val_steps": "the first validation is at evaluation.every",
            "use_distributed_sampler": "batches are already shared among the devices",
            "val_check_interval": "give evaluation.every, in optimizer steps",
        },
    ),
    "model.pretrained": Setting(PATH_OR_CALL, hashed_as="base"),
    "model.revision": Setting(TEXT, hashed_as="base"),
    "model.dtype": Setting(TEXT),
    "model.targets": Setting(TEXT),
    "model.vocabulary": Setting(choice("all", "data"), hashed_as="base"),
    "model.chat_template": Setting(BOOLEAN, neutral=False),
    "data.name": Setting(NAME, decides=False),
    "data.root": Setting(PATH_OR_CALL, hashed_as="files"),
    "data.allow_missing": Setting(BOOLEAN, hashed_as="files"),
    "data.max_input_length": Setting(integer(1, 2**20), hashed_as="lengths"),
    "data.max_target_length": Setting(integer(1, 2**20), hashed_as="lengths"),
    "data.languages": Setting(nullable(MAPPING), hashed_as="languages"),  # checked by Tasks.of
    "data.samples": Setting(nullable(list_of(NAME, "a list of tasks")), decides=False),
    "data.learning_rates": Setting(MAPPING, hashed_as="optimizer"),
    "data.feature_dropout": Setting(ANY, hashed_as="dropout"),  # checked where flix.dropout refers to it
    "data.rescale": Setting(BOOLEAN, hashed_as="flix"),
    "flix.name": Setting(NAME, decides=False),
    "flix.ranks": Setting(MAPPING, hashed_as="ranks"),
    "flix.lora_rank": Setting(ANY, hashed_as="ranks"),  # checked by resolve_lora_rank
    "flix.learning_rate": Setting(ANY, hashed_as="optimizer"),  # checked as optimizer.learning_rate
    "flix.learning_rate_ratios": Setting(nullable(_RATIOS), neutral=None),
    "flix.dropout": Setting(ANY, hashed_as="dropout"),  # checked by FeatureDropout
    "flix.rescale": Setting(BOOLEAN, neutral=False),
    "flix.controls": Setting(_KINDS, hashed_as="controls"),
    "mixture": Setting(MAPPING, hashed_as="datasets"),  # checked by Mixture.resolve
    "logger": Setting(nullable(MAPPING), decides=False),  # checked by each logger
}

#: What a config may call: for the folder of its data, for its base model, and for its strategy.
MAKERS = (
    "flix_lightning.cldr.benchmark.ensure",
    "flix_lightning.data.hub.ensure",
    "flix_lightning.models.gguf.ensure",
    "flix_lightning.models.fsdp.ShardedStrategy",
)

#: Addresses of makers in the configs of older runs.
_OLD_MAKERS = {
    "flix_lightning.packaged.ensure": "flix_lightning.models.gguf.ensure",
    "flix_lightning.sharded.ShardedStrategy": "flix_lightning.models.fsdp.ShardedStrategy",
}


def make_value(value: Any) -> Any:
    """Return a value as the config gives it, or what its `_target_` call returns.

    Raises:
        UserError: the call is none of MAKERS, as a config may come with the run of somebody else; or the call
            itself raises it.
    """
    if not OmegaConf.is_dict(value):
        return value
    target = _OLD_MAKERS.get(value.get("_target_"), value.get("_target_"))
    if target not in MAKERS:
        raise UserError(f"_target_ is {target!r}; one of {', '.join(MAKERS)} is needed")
    call = copy(value)  # which keeps its place in the config, for error messages
    call["_target_"] = target
    try:
        return instantiate(call, _recursive_=False)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise
