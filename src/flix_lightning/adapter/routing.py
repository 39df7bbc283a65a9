"""The rows in force in one model: in its forward, and again when checkpointing recomputes a layer."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from flix_lightning.adapter.features import Rows
from flix_lightning.adapter.layers import find_layers


class Routing:
    """The rows of the batch that a model works on, shared by its adapted projections.

    It is neither global nor thread-local: autograd recomputes checkpointed layers in its own threads. `cache`
    is for what the projections compute from these rows, and ends with them.
    """

    def __init__(self):
        self._rows: Rows | None = None
        self.cache: dict[Hashable, Any] = {}

    @property
    def rows(self) -> Rows:
        """The rows in force; without any it raises RuntimeError, so that no other batch's are used."""
        if self._rows is None:
            raise RuntimeError("an adapted model ran without features= and outside `adapter.route`")
        return self._rows

    @contextmanager
    def use(self, rows: Rows | None) -> Iterator[None]:
        """Put `rows` in force inside the `with` block."""
        before = self._rows, self.cache
        self._rows, self.cache = rows, {}
        try:
            yield
        finally:
            self._rows, self.cache = before

    def checkpoint_layers(self, model: PreTrainedModel) -> None:
        """Keep only the input of each layer for backward, which recomputes the rest; see `find_layers`.

        When backward recomputes a layer, its `use` block has ended and another batch's may be open, so each
        layer's rows are kept too. Transformers' own switch works in training mode only, which turns on the
        dropout of some layers.
        """

        def forward_with_rows(forward: Callable, rows: Rows | None, *args: Any, **options: Any) -> Any:
            with self.use(rows):
                return forward(*args, **options)

        def checkpointed(forward: Callable, *args: Any, **options: Any) -> Any:
            return checkpoint(forward_with_rows, forward, self._rows, *args, use_reentrant=False, **options)

        for layer in find_layers(model, "trainer.activation_checkpointing=true"):
            layer.forward = partial(checkpointed, layer.forward)
