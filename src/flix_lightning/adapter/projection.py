"""The adapted projection, its injection into any Hugging Face model, and the adapter's state."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from flix_lightning.adapter import update
from flix_lightning.adapter.features import FeatureSpace, Rows
from flix_lightning.adapter.routing import Routing
from flix_lightning.adapter.targets import find_targets
from flix_lightning.common.errors import UserError, list_names


class AdaptedProjection(nn.Module):
    """A frozen projection plus the low-rank updates of each example's active features (eq. 2 of the paper).

    `A` [R + 1, d_in] and `B` [R + 1, d_out] are pools of rows; the last row is zero and stays so. To the
    base's output for example i, whose rows are `index[i]`, is added ``(x[i] A[index[i]]ᵀ) B[index[i]]``, with
    no scaling. A starts uniform in ±1/√d_in, as LoRA's does, and B at zero. The update is added in place: a
    hook on `base` that keeps its output must clone it.
    """

    def __init__(
        self,
        name: str,
        base: nn.Linear | Conv1D,
        space: FeatureSpace,
        routing: Routing,
        seed: int,
        sparse_gradients: bool = False,
    ):
        super().__init__()
        self.base = base
        self._sparse = sparse_gradients
        self._name = name
        self._routing = routing
        linear = isinstance(base, nn.Linear)
        d_in, d_out = (base.in_features, base.out_features) if linear else base.weight.shape
        # At least float32: bfloat16 pools would lose small steps.
        dtype = torch.promote_types(base.weight.dtype, torch.float32)
        options = {"device": base.weight.device, "dtype": dtype}
        digest = blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest) >> 1)
        start = torch.empty(space.total_rank, d_in).uniform_(-(d_in**-0.5), d_in**-0.5, generator=generator)
        self.A = nn.Parameter(functional.pad(start, (0, 0, 0, 1)).to(**options))
        self.B = nn.Parameter(torch.zeros(space.total_rank + 1, d_out, **options))

    @property
    def weight(self) -> Tensor:
        """The base projection's weight, at whose type some models look (T5: `self.wo.weight.dtype`)."""
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        """The base projection's bias."""
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        """Project x [batch, ..., d_in] to [batch, ..., d_out].

        Raises:
            RuntimeError: outside `Adapter.route`, or the examples routed do not divide x's batch.
        """
        rows = self._routing.rows
        index = rows.index[:1] if rows.uniform else rows.index
        # Beam search and num_return_sequences repeat examples inside the decoder.
        if x.shape[0] < index.shape[0] or x.shape[0] % index.shape[0]:
            raise RuntimeError(
                f"{self._name} got {x.shape[0]} inputs for the {len(index)} examples that were routed; "
                "it needs as many, or a multiple"
            )
        A, B = self.A, self.B
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else A.dtype
        if not torch.is_grad_enabled():
            return update.added(self.base(x), x, *self._gathered(A, B, index, dtype))
        # One tensor given twice is more than torch.compile takes.
        trained = None if rows.trained is rows.index else rows.trained[: len(index)]
        x, product = update.down(x, A, index, trained, dtype, self._sparse)
        return update.up(self.base(x), product, B, index, trained, self._sparse)

    def _gathered(self, A: Tensor, B: Tensor, index: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The rows of each example, kept while they are in force: generation needs them at every token.

        That is r · (d_in + d_out) numbers an example: of all linears at r = 6 what 57 tokens take in the
        cache of a Llama 2 of 7B, and 155 in that of a Gemma 3 of 270M.
        """
        # Of tensors made in inference mode nobody can tell whether they have changed since.
        keep = not (torch.compiler.is_compiling() or A.is_inference())
        if keep:
            made_of = self._name, dtype, A._version, B._version
            if gathered := self._routing.kept.get(made_of):
                return gathered
        gathered = update.gather(A, index, dtype), update.gather(B, index, dtype)
        if keep:
            self._routing.kept[made_of] = gathered
        return gathered


class Adapter:
    """The trainable part of an injected model; `inject` makes it.

    Attributes:
        space: the features it has pools for.
        modules: the adapted projections, by the dotted name that each had in the base model.
    """

    def __init__(self, space: FeatureSpace, modules: dict[str, AdaptedProjection], routing: Routing):
        self.space = space
        self.modules = modules
        self._routing = routing

    def route(self, rows: Rows) -> AbstractContextManager[None]:
        """Put `rows` in force for the forwards in a `with` block; backward may come after it.

        A forward outside raises RuntimeError.
        """
        return self._routing.use(rows.to(self.parameters()[0].device))

    def checkpoint_layers(self, model: PreTrainedModel) -> None:
        """Save memory in training `model` by a second forward; see `Routing.checkpoint_layers`."""
        self._routing.checkpoint_layers(model)

    def parameters(self) -> list[nn.Parameter]:
        """Return every A and B: all that is trained."""
        return [pool for module in self.modules.values() for pool in (module.A, module.B)]

    def active_parameters(self, rank: int) -> int:
        """Return how many parameters an example of active rank `rank` uses."""
        return rank * sum(pool.shape[1] for pool in self.parameters())

    @property
    def total_parameters(self) -> int:
        """How many parameters are trained, over all features that are not frozen."""
        return self.active_parameters(self.space.trained_rank)

    def summary(self) -> str:
        """Say in one line which projections are adapted and how many parameters are active and trained."""
        groups = Counter(re.sub(r"\b\d+\b", "*", name) for name in self.modules)
        largest = {}
        for feature, rank in self.space.ranks.items():
            kind = feature.partition(":")[0]
            largest[kind] = max(rank, largest.get(kind, 0))
        active = sum(largest.values())
        frozen = f"; frozen features: {len(self.space.frozen)}" if self.space.frozen else ""
        matched = ", ".join(f"{name} ({count})" for name, count in groups.items())
        return (
            f"adapted {len(self.modules)} projections: {matched}; trainable parameters: "
            f"{self.active_parameters(active):,} active at most (rank {active}), "
            f"{self.total_parameters:,} in all (rank {self.space.trained_rank}){frozen}"
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return "<module name>.A" [R, d_in] and "<module name>.B" [R, d_out], without the null row."""
        return {
            f"{name}.{pool}": getattr(module, pool).detach()[:-1]
            for name, module in self.modules.items()
            for pool in "AB"
        }

    def load_state_dict(self, state: Mapping[str, Tensor], ranks: Mapping[str, int]) -> None:
        """Load what `state_dict` returned for an adapter whose `space.ranks` were `ranks`, in that order.

        Raises:
            UserError: other features, ranks, projections or shapes, naming what differs, or a value that is
                not finite; nothing is loaded.
        """
        differences = _mismatches("features", ranks, self.space.ranks, "rank")
        if not differences and list(ranks) != list(self.space.ranks):
            differences = ["another order of features"]
        self._load(state, ranks, ranks, differences)

    def load_features(
        self, state: Mapping[str, Tensor], ranks: Mapping[str, int], features: Collection[str]
    ) -> None:
        """Load the rows of `features` alone, and read no others, of what `load_state_dict` takes.

        The adapter may have features that `state` lacks, and lack others that it has.

        Raises:
            UserError: a feature that one of the two lacks or has at another rank, other projections or
                shapes, naming what differs, or a value that is not finite; nothing is loaded.
        """
        found = {feature: ranks[feature] for feature in features if feature in ranks}
        wanted = {feature: self.space.ranks.get(feature, 0) for feature in features}
        self._load(state, ranks, features, _mismatches("features", found, wanted, "rank"))

    @torch.no_grad()
    def _load(
        self,
        state: Mapping[str, Tensor],
        ranks: Mapping[str, int],
        features: Collection[str],
        differences: list[str],
    ) -> None:
        own, rank = self.state_dict(), sum(ranks.values())
        found = {key: list(pool.shape) for key, pool in state.items()}
        wanted = {key: [rank, pool.shape[1]] for key, pool in own.items()}
        differences += _mismatches("pools", found, wanted, "shape")
        if differences:
            raise UserError(f"this checkpoint does not fit this adapter: it has {'; '.join(differences)}")
        rows, theirs = (torch.tensor(space.range_of(features)) for space in (self.space, FeatureSpace(ranks)))
        read = {key: state[key][theirs] for key in own}
        require_finite(read)
        for key, pool in own.items():
            pool[rows] = read[key].to(pool)


def inject(
    model: PreTrainedModel,
    space: FeatureSpace,
    targets: str = "default",
    seed: int = 0,
    sparse_gradients: bool = False,
) -> Adapter:
    """Freeze `model` and replace each projection that `targets` means by an `AdaptedProjection`.

    Args:
        model: any Hugging Face model; changed in place.
        space: the features to make pools for.
        targets: see `find_targets`.
        seed: decides the start of A, together with each projection's name and nothing else.
        sparse_gradients: the pools get gradients of their active rows alone, as `LazyAdam` takes them, so
            that training costs what these rows cost, however many there are.

    Raises:
        UserError: see `find_targets`.
    """
    model.requires_grad_(False)
    routing = Routing()
    modules = {}
    for name, base in find_targets(model, targets).items():
        modules[name] = AdaptedProjection(name, base, space, routing, seed, sparse_gradients)
        model.set_submodule(name, modules[name])
    routing.follow_checkpointing(model)
    return Adapter(space, modules, routing)


def require_finite(pools: Mapping[str, Tensor]) -> None:
    """Raise UserError, naming the pool, where rows that are to be used hold what is no finite number."""
    for key, pool in pools.items():
        if not pool.isfinite().all():
            raise UserError(f"{key} holds what is no finite number")


def _mismatches(what: str, found: Mapping[str, Any], wanted: Mapping[str, Any], value: str) -> list[str]:
    changed = [key for key in wanted if found.get(key, wanted[key]) != wanted[key]]
    parts = {
        f"no {what}": [key for key in wanted if key not in found],
        f"unexpected {what}": [key for key in found if key not in wanted],
        f"another {value}:": [f"{key} {found[key]} instead of {wanted[key]}" for key in changed],
    }
    return [f"{part} {list_names(keys)}" for part, keys in parts.items() if keys]
