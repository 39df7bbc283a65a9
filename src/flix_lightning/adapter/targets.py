"""Which projections of a model get an adapter."""

import re

from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as LORA_TARGETS
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from flix_lightning.common.errors import UserError


def find_targets(model: PreTrainedModel, targets: str) -> dict[str, nn.Linear | Conv1D]:
    """Return the projections that `targets` means, by dotted name.

    Args:
        model: any Hugging Face model.
        targets: `default` (PEFT's LoRA targets for this type of model), `all-linear`, or a regular expression
            that must match the whole dotted name. Output embeddings, tied or not, never match, nor does what
            reads pictures or sound.

    Raises:
        UserError: no default for this type of model, a broken pattern, or nothing matched.
    """
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    head = model.get_output_embeddings()
    untouchable = {id(module.weight) for module in [*embeddings, head] if module is not None}
    untouchable |= {id(module.weight) for tower in _towers(model) for module in _projections(tower).values()}
    projections = {
        name: module for name, module in _projections(model).items() if id(module.weight) not in untouchable
    }
    try:
        pattern = re.compile(_pattern(targets, model.config.model_type))
    except re.error as error:
        raise UserError(f"targets={targets!r} is not a regular expression: {error}") from error
    matched = {name: module for name, module in projections.items() if pattern.fullmatch(name)}
    if not matched:
        examples = list({name.rpartition(".")[2]: name for name in reversed(projections)}.values())[:8]
        raise UserError(
            f"targets={targets!r} matches no projection of {type(model).__name__}; it has, among others, "
            + ", ".join(examples)
        )
    return matched


def _projections(module: nn.Module) -> dict[str, nn.Linear | Conv1D]:
    return {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear | Conv1D)}


def _towers(model: PreTrainedModel) -> list[PreTrainedModel]:
    """The models within a model of several modalities that read no text: they have another kind of config."""
    of_text = {type(model.config), type(model.config.get_text_config())}
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    return [part for part in parts if type(part.config) not in of_text]


def _pattern(targets: str, model_type: str) -> str:
    if targets == "all-linear":
        return ".*"
    if targets != "default":
        return targets
    if model_type not in LORA_TARGETS:
        raise UserError(f"targets=default is not known for {model_type} models: use all-linear or a regex")
    names = LORA_TARGETS[model_type]
    return names if isinstance(names, str) else rf"(.*\.)?({'|'.join(map(re.escape, names))})"
