"""The rows in force in one model: at its forward, and again where activation checkpointing recomputes it."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from flix_lightning.adapter.features import Rows
from flix_lightning.adapter.layers import find_layers


class Routing:
    """The rows of the batch that a model is working on, shared by its adapted projections.

    Neither global nor thread-local: autograd recomputes checkpointed layers in threads of its own.

    Attributes:
        kept: for as long as these rows are in force, what each projection made of them.
    """

    def __init__(self):
        self._rows: Rows | None = None
        self.kept: dict[Hashable, Any] = {}

    @property
    def rows(self) -> Rows:
        """The rows in force.

        Raises:
            RuntimeError: there are none, so that no forward can use another batch's rows unnoticed.
        """
        if self._rows is None:
            raise RuntimeError("an adapted model ran outside `with adapter.route(rows):`")
        return self._rows

    @contextmanager
    def use(self, rows: Rows | None) -> Iterator[None]:
        """Put `rows` in force for the body."""
        before = self._rows, self.kept
        self._rows, self.kept = rows, {}
        try:
            yield
        finally:
            self._rows, self.kept = before

    def checkpoint_layers(self, model: PreTrainedModel) -> None:
        """Keep only the input of each layer for backward, which recomputes the rest; in eval mode too.

        Transformers' own switch does nothing in eval mode, in which a frozen base stays, and in training mode
        would switch on the dropout that some families (BART) have in the layer itself.

        Raises:
            UserError: see `find_layers`.
        """
        recomputed = self._following(partial(checkpoint, use_reentrant=False))
        for layer in find_layers(model, "trainer.activation_checkpointing=true"):
            layer.forward = partial(recomputed, layer.forward)

    def follow_checkpointing(self, model: PreTrainedModel) -> None:
        """Give each recomputation the rows of its own forward, whenever checkpointing is or was switched on.

        By the time backward recomputes a layer, its `route` has been left, and another batch's may have come
        and gone. The checkpointed function is wrapped, as PyTorch's `context_fn` serves one kind of two only.
        """
        set_checkpointing = model._set_gradient_checkpointing

        def set_and_follow(enable=True, gradient_checkpointing_func=checkpoint, **options):
            func = self._following(gradient_checkpointing_func)
            set_checkpointing(enable=enable, gradient_checkpointing_func=func, **options)

        model._set_gradient_checkpointing = set_and_follow
        for module in model.modules():
            if hasattr(module, "_gradient_checkpointing_func"):
                module._gradient_checkpointing_func = self._following(module._gradient_checkpointing_func)

    def _following(self, checkpoint_func: Callable) -> Callable:
        def checkpoint_with_rows(function, *args, **options):
            rows = self._rows

            def run(*inner, **inner_options):
                with self.use(rows):
                    return function(*inner, **inner_options)

            return checkpoint_func(run, *args, **options)

        return checkpoint_with_rows
