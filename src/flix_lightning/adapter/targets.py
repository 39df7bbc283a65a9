"""Which projections of a model get an adapter."""

import logging
import re

from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as LORA_TARGETS
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from flix_lightning.adapter.layout import find_unfit, group_names
from flix_lightning.common.errors import UserError

log = logging.getLogger(__name__)


def find_targets(model: PreTrainedModel, targets: str) -> dict[str, nn.Linear | Conv1D]:
    """Return the projections that `targets` selects, by dotted name.

    Output embeddings, tied or not, and the parts that read pictures or sound are never selected.

    Args:
        model: any Hugging Face model.
        targets: `default` (PEFT's LoRA targets for this type of model), `all-linear` (all that can
            be adapted; a warning lists the others), or a regular expression for the whole
            dotted name.

    Raises:
        UserError: this type of model has no default, the expression is broken, nothing matches, or what
            matches cannot be adapted (see `find_unfit`).
    """
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    others = [part for tower in _other_modalities(model) for part in _projections(tower).values()]
    head = model.get_output_embeddings()
    excluded = {id(module.weight) for module in [*embeddings, *others, head] if module is not None}
    # FSMT has another head than it says. A square weight may be any projection.
    shape = head.weight.shape if head else None
    if shape and shape[0] != shape[1]:
        excluded |= {id(one.weight) for one in _projections(model).values() if one.weight.shape == shape}
    projections = {name: one for name, one in _projections(model).items() if id(one.weight) not in excluded}
    try:
        pattern = re.compile(_pattern(targets, model.config.model_type))
    except re.error as error:
        raise UserError(f"targets={targets!r} is not a regular expression: {error}") from error
    matched = {name: module for name, module in projections.items() if pattern.fullmatch(name)}
    if unfit := find_unfit(model, matched):
        model_name = type(model).__name__
        reason = "their inputs mix the examples of a batch, or neither text nor gradients reach them"
        listed = f"{group_names(unfit)} of {model_name}: {reason}"
        if len(unfit) == len(matched):
            raise UserError(f"targets={targets!r}: {model_name} has no projections to adapt, as {reason}")
        if targets != "all-linear":
            raise UserError(f"targets={targets!r} must leave out {listed}")
        log.warning("not adapted: %s", listed)
        matched = {name: module for name, module in matched.items() if name not in unfit}
    if not matched:
        examples = list({name.rpartition(".")[2]: name for name in reversed(projections)}.values())[:8]
        raise UserError(
            f"targets={targets!r} matches no projection of {type(model).__name__}; it has, among others, "
            + ", ".join(examples)
        )
    return matched


def _projections(module: nn.Module) -> dict[str, nn.Linear | Conv1D]:
    return {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear | Conv1D)}


def _other_modalities(model: PreTrainedModel) -> list[PreTrainedModel]:
    text_configs = {type(model.config), type(model.config.get_text_config())}
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    return [part for part in parts if type(part.config) not in text_configs]


def _pattern(targets: str, model_type: str) -> str:
    if targets in ("all-linear", "default"):
        names = LORA_TARGETS.get(model_type) if targets == "default" else ".*"
        if names is None:
            raise UserError(
                f"targets=default is not known for {model_type} models: use all-linear or a regex"
            )
        return names if isinstance(names, str) else rf"(.*\.)?({'|'.join(map(re.escape, names))})"
    return targets
