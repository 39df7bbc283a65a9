"""The models that are compared: a frozen base, PEFT's LoRA, and FLix with any number of features."""

import copy
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from flix_lightning.adapter.features import FeatureSpace
from flix_lightning.adapter.layers import compile_layers
from flix_lightning.adapter.projection import inject
from flix_lightning.adapter.targets import find_targets

TASKS, TASK_RANK, LANGUAGE_RANK = 5, 4, 2  # the paper's joint mixture: tasks, and its ranks
ACTIVE_RANK = TASK_RANK + LANGUAGE_RANK
LORA = f"PEFT LoRA r={ACTIVE_RANK}"
AGAIN = f"{LORA}, again"  # a second copy, which shows the noise
FROZEN = "frozen base"
ONEDNN = "base by oneDNN, as in train.py"  # the others have PyTorch's own layers
JOINT = 40  # features of the joint mixture
COUNTS = (10, JOINT, 120, 1000)  # features
MATCHED_RANK = TASKS * TASK_RANK + (JOINT - TASKS) * LANGUAGE_RANK  # of param-matched LoRA


@dataclass(frozen=True)
class Contender:
    """A model to measure.

    Attributes:
        model: the model.
        trained: its trained parameters.
        around: makes the context of a forward pass.
        lazy: whether the optimizer moves the active rows only.
    """

    model: PreTrainedModel
    trained: list[nn.Parameter]
    around: Callable[[], AbstractContextManager] = nullcontext
    lazy: bool = False


def frozen(base: PreTrainedModel) -> Contender:
    """The base alone. Its backward pass reaches the embeddings, almost as an adapted model's does."""
    model = _copy(base).requires_grad_(False)
    model.enable_input_require_grads()
    return Contender(model, [])


def lora(base: PreTrainedModel, rank: int, targets: str) -> Contender:
    """PEFT's LoRA on the projections that FLix adapts for the same `targets`."""
    names = list(find_targets(base, targets))
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=names)
    model = get_peft_model(_copy(base), config)
    return Contender(model, [weight for weight in model.parameters() if weight.requires_grad])


def flix(base: PreTrainedModel, features: int, targets: str, batch: int, lazy: bool = False) -> Contender:
    """FLix with `features` features; each of `batch` examples has a task and a language."""
    model = _copy(base)
    adapter = inject(model, space(features), targets, sparse_gradients=lazy)
    named = examples(features, batch)
    # Each forward pass looks its rows up, as in training.
    return Contender(model, adapter.parameters(), lambda: adapter.route(adapter.space.rows(named)), lazy)


def space(features: int) -> FeatureSpace:
    """Five tasks of rank 4; the other features are languages of rank 2."""
    return FeatureSpace(
        {f"task:{n}": TASK_RANK for n in range(TASKS)}
        | {f"language:{n}": LANGUAGE_RANK for n in range(features - TASKS)}
    )


def examples(features: int, batch: int) -> list[tuple[str, str]]:
    """The features of a batch, drawn uniformly with a fixed seed."""
    draw = random.Random(0)
    return [
        (f"task:{draw.randrange(TASKS)}", f"language:{draw.randrange(features - TASKS)}")
        for _ in range(batch)
    ]


def name(features: int) -> str:
    """FLix's name in a report."""
    return f"FLix D={features:,}"


def trainable(base: PreTrainedModel, targets: str, batch: int) -> dict[str, Contender]:
    """Every contender that trains, and the frozen base."""
    return {
        FROZEN: frozen(base),
        LORA: lora(base, ACTIVE_RANK, targets),
        AGAIN: lora(base, ACTIVE_RANK, targets),
        f"PEFT LoRA r={MATCHED_RANK}": lora(base, MATCHED_RANK, targets),
        **{name(count): flix(base, count, targets, batch) for count in COUNTS},
    }


def compiled(base: PreTrainedModel, targets: str, batch: int) -> dict[str, Contender]:
    """PEFT's LoRA and FLix with compiled layers, as `trainer.compile=true` compiles them."""
    everyone = {LORA: lora(base, ACTIVE_RANK, targets), name(JOINT): flix(base, JOINT, targets, batch)}
    for one in everyone.values():
        compile_layers(one.model)
    return {f"{title}, compiled": one for title, one in everyone.items()}


def _copy(base: PreTrainedModel) -> PreTrainedModel:
    """Copy a model but for its weights, which nobody changes."""
    return copy.deepcopy(base, {id(weight): weight for weight in base.parameters()})
