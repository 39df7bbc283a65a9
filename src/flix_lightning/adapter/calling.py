"""The argument `features=` of an adapted model's forward and generate, for loops such as HF's Trainer."""

import inspect
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

if TYPE_CHECKING:
    from flix_lightning.adapter.projection import Adapter


def accept_features(model: PreTrainedModel, adapter: "Adapter") -> None:
    """Let `forward` and `generate` of a model take `features`: those of each example, as `FeatureSpace.rows`.

    `save_pretrained` and `push_to_hub` of the model then write the adapter alone: transformers could not read
    the adapted projections again.
    """
    for name in ("forward", "generate") if hasattr(model, "generate") else ("forward",):
        method = getattr(model, name)
        call = partial(_call, adapter, method)
        call.__signature__ = _with_features(inspect.signature(method))  # Trainer drops other columns
        setattr(model, name, call)
    model.save_pretrained = partial(_save, adapter)


def _call(
    adapter: "Adapter",
    method: Callable[..., Any],
    *args: Any,
    features: Sequence[Collection[str]] | None = None,
    **options: Any,
) -> Any:
    if features is None:  # the rows of an enclosing call or of `adapter.route`
        return method(*args, **options)
    with adapter.route(adapter.space.rows(features)):
        return method(*args, **options)


def _with_features(signature: inspect.Signature) -> inspect.Signature:
    own = inspect.Parameter("features", inspect.Parameter.KEYWORD_ONLY, default=None)
    parameters = list(signature.parameters.values())
    takes_more = bool(parameters) and parameters[-1].kind == inspect.Parameter.VAR_KEYWORD
    parameters.insert(len(parameters) - takes_more, own)
    return signature.replace(parameters=parameters)


def _save(adapter: "Adapter", save_directory: str, is_main_process: bool = True, **_: Any) -> None:
    if is_main_process:
        adapter.save_pretrained(save_directory)
