"""The adapted projection, its injection into any Hugging Face model, and the adapter's state."""

import logging
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import HfApi
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from flix_lightning.adapter import update
from flix_lightning.adapter.calling import accept_features
from flix_lightning.adapter.features import FeatureSpace, Rows
from flix_lightning.adapter.layout import find_sizes, group_names
from flix_lightning.adapter.routing import Routing
from flix_lightning.adapter.saving import SavedAdapter, find_misfit
from flix_lightning.adapter.targets import find_targets
from flix_lightning.common.errors import UserError, list_names

log = logging.getLogger(__name__)


class AdaptedProjection(nn.Module):
    """A frozen projection plus the low-rank updates of each example's active features (eq. 2 of the paper).

    `A` [R + 1, d_in] and `B` [R + 1, d_out] are pools of rows; the last row is always zero. Example i, whose
    rows are `index[i]`, gets ``(x[i] A[index[i]]ᵀ) B[index[i]]`` added to the base's output, without scaling
    unless the rows have factors.
    A starts uniform in ±1/√d_in, as in LoRA, and B at zero. The update is added in place: a hook on `base`
    that keeps its output must clone it.
    """

    def __init__(
        self,
        name: str,
        base: nn.Linear | Conv1D,
        space: FeatureSpace,
        routing: Routing,
        seed: int,
        sparse=False,
    ):
        super().__init__()
        self.base, self._name, self._routing, self._sparse = base, name, routing, sparse
        d_in, d_out = find_sizes(base)
        # At least float32: bfloat16 pools would lose small steps.
        dtype = torch.promote_types(base.weight.dtype, torch.float32)
        options = {"device": base.weight.device, "dtype": dtype}
        digest = blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest) >> 1)
        start = torch.empty(space.total_rank, d_in).uniform_(-(d_in**-0.5), d_in**-0.5, generator=generator)
        self.A = nn.Parameter(functional.pad(start, (0, 0, 0, 1)).to(**options))
        self.B = nn.Parameter(torch.zeros(space.total_rank + 1, d_out, **options))
        if space.frozen:
            trained = torch.ones(space.total_rank + 1, dtype=torch.bool)
            trained[space.range_of(space.frozen)] = False
            for pool in (self.A, self.B):
                pool.register_hook(partial(_select_rows, trained))

    # Some models read these of a projection (T5: `self.wo.weight.dtype`).
    weight = property(lambda self: self.base.weight)
    bias = property(lambda self: self.base.bias)
    in_features = property(lambda self: self.base.in_features)
    out_features = property(lambda self: self.base.out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Project x [batch, ..., d_in] to [batch, ..., d_out].

        Raises:
            RuntimeError: no rows are routed, or the size of x is no multiple of the number of examples.
        """
        rows = self._routing.rows
        index = rows.index[:1] if rows.uniform else rows.index
        # Beam search and num_return_sequences repeat each example inside the decoder.
        if x.shape[0] < index.shape[0] or x.shape[0] % index.shape[0]:
            raise RuntimeError(
                f"{self._name} got {x.shape[0]} inputs for the {len(index)} examples that were routed; "
                "it needs as many, or a multiple"
            )
        A, B = self.A, self.B
        device = x.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        else:  # small steps are lost in bfloat16 pools, but not in products with their rows
            dtype = torch.bfloat16 if x.dtype == torch.bfloat16 else A.dtype
        factors = None if rows.factors is None else rows.factors[: len(index), :, None].to(dtype)
        if not torch.is_grad_enabled():
            gathered_A, gathered_B = self._gathered(A, B, index, dtype)
            gathered_A = gathered_A if factors is None else gathered_A * factors
            return update.add_update(self.base(x), x, gathered_A, gathered_B)
        x, product = update.down(x, A, index, dtype, self._sparse)
        product = product if factors is None else product * factors
        return update.up(self.base(x), product, B, index, self._sparse)

    def _gathered(self, A: Tensor, B: Tensor, index: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the rows of each example, cached while they are in force: each generated token needs them.

        The cache holds r · (d_in + d_out) numbers an example. For all linears at r = 6 that is as much as 57
        tokens in the key-value cache of Llama 2 7B, and as 155 in that of Gemma 3 270M.
        """
        # Tensors made in inference mode have no version, so a change would go unseen.
        if torch.compiler.is_compiling() or A.is_inference():
            return update.gather(A, index, dtype), update.gather(B, index, dtype)
        cache, key = self._routing.cache, (self._name, dtype, A._version, B._version)
        if key not in cache:
            cache[key] = update.gather(A, index, dtype), update.gather(B, index, dtype)
        return cache[key]


class Adapter:
    """The trained part of a model; `inject` makes it.

    Attributes:
        base: the name of the base model, or its folder.
        space: its features.
        modules: the adapted projections, by their dotted names in the base model.
    """

    def __init__(
        self, base: str, space: FeatureSpace, modules: dict[str, AdaptedProjection], routing: Routing
    ):
        self.base, self.space, self.modules, self._routing = base, space, modules, routing
        self.checkpoint_layers = routing.checkpoint_layers

    def route(self, rows: Rows) -> AbstractContextManager[None]:
        """Put `rows` in force for the forwards in a `with` block; backward may come later.

        A forward outside raises RuntimeError.
        """
        device = self.parameters()[0].device
        factors = None if rows.factors is None else rows.factors.to(device)
        return self._routing.use(replace(rows, index=rows.index.to(device), factors=factors))

    def parameters(self) -> list[nn.Parameter]:
        """Return every A and B: all trained parameters."""
        return [pool for module in self.modules.values() for pool in (module.A, module.B)]

    def active_parameters(self, rank: int) -> int:
        """Return how many parameters an example of active rank `rank` uses."""
        return rank * sum(pool.shape[1] for pool in self.parameters())

    @property
    def total_parameters(self) -> int:
        """The number of trained parameters: those of all features that are not frozen."""
        return self.active_parameters(self.space.trained_rank)

    def summary(self) -> str:
        """Describe in one line the adapted projections and the active and trained parameters."""
        ranks = sorted((feature.partition(":")[0], rank) for feature, rank in self.space.ranks.items())
        active = sum(dict(ranks).values())  # the largest rank of each kind
        frozen = f"; frozen features: {len(self.space.frozen)}" if self.space.frozen else ""
        return (
            f"adapted {len(self.modules)} projections: {group_names(self.modules)}; trainable parameters: "
            f"{self.active_parameters(active):,} active at most (rank {active}), "
            f"{self.total_parameters:,} in all (rank {self.space.trained_rank}){frozen}"
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return "<module name>.A" [R, d_in] and "<module name>.B" [R, d_out], without the null row."""
        pools = {f"{name}.{pool}": getattr(one, pool) for name, one in self.modules.items() for pool in "AB"}
        return {key: pool.detach()[:-1] for key, pool in pools.items()}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write all features to `folder`, for `load_adapter`; raises UserError if it cannot be written."""
        SavedAdapter(self.base, self.space.ranks, self.state_dict()).write(Path(folder))

    def push_to_hub(self, name: str, *, private: bool | None = None, token: str | None = None) -> str:
        """Upload what `save_pretrained` writes to the repository `owner/name` of Hugging Face's hub.

        Args:
            name: the repository, which is made if it is not there.
            private: whether a new repository is private; None is as the owner has set it.
            token: of the account; None is that of `hf auth login`.

        Returns:
            The address of the upload.
        """
        hub = HfApi(token=token)
        hub.create_repo(name, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return hub.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload an adapter")

    def load_state_dict(self, state: Mapping[str, Tensor], ranks: Mapping[str, int]) -> None:
        """Load a `state_dict` of an adapter with the same features; `ranks` is its `space.ranks`.

        Raises:
            UserError: features, ranks, their order, projections or shapes differ (it names them), or a value
                is not finite. Then nothing is loaded.
        """
        differences = _differences("features", ranks, self.space.ranks, "rank")
        if not differences and list(ranks) != list(self.space.ranks):
            differences = ["another order of features"]
        self._load(state, ranks, ranks, differences)

    def load_features(
        self, state: Mapping[str, Tensor], ranks: Mapping[str, int], features: Collection[str]
    ) -> None:
        """Load, and read, only the rows of `features` from a `state_dict` of an adapter with `ranks`.

        Raises:
            UserError: one of the two lacks a feature or has it at another rank, projections or shapes differ
                (it names them), or a value is not finite. Then nothing is loaded.
        """
        found = {feature: ranks[feature] for feature in features if feature in ranks}
        wanted = {feature: self.space.ranks.get(feature, 0) for feature in features}
        self._load(state, ranks, features, _differences("features", found, wanted, "rank"))

    @torch.no_grad()
    def _load(self, state, ranks: Mapping, features: Collection[str], differences: list[str]) -> None:
        own, rank = self.state_dict(), sum(ranks.values())
        found = {key: list(pool.shape) for key, pool in state.items()}
        wanted = {key: [rank, pool.shape[1]] for key, pool in own.items()}
        if differences := differences + _differences("pools", found, wanted, "shape"):
            raise UserError(f"this checkpoint does not fit this adapter: it has {'; '.join(differences)}")
        rows, state_rows = (torch.tensor(one.range_of(features)) for one in (self.space, FeatureSpace(ranks)))
        selected = {key: state[key][state_rows] for key in own}
        require_finite(selected)
        for key, pool in own.items():
            pool[rows] = selected[key].to(pool)


def inject(
    model: PreTrainedModel,
    space: FeatureSpace,
    targets: str = "default",
    seed: int = 0,
    sparse_gradients=False,
) -> Adapter:
    """Freeze `model` and replace each projection that `targets` selects by an `AdaptedProjection`.

    `model(…, features=…)` and `model.generate(…, features=…)` then take the features of each example.

    Args:
        model: any Hugging Face model; changed in place.
        space: the features.
        targets: see `find_targets`.
        seed: decides, with a projection's name, the start of its A.
        sparse_gradients: give the pools gradients of their active rows alone, for `LazyAdam`: training then
            costs what these rows cost, however many rows there are.

    Raises:
        UserError: see `find_targets`; `model` checkpoints activations already, or gives no gradient.
    """
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise UserError("gradient checkpointing must be off: it loses the rows, checkpoint_layers does not")
    _keep_gradients(model)
    model.supports_gradient_checkpointing = False
    model.requires_grad_(False)
    routing, modules = Routing(), {}
    places = defaultdict(list)  # one module may stand in several
    for place, module in model.named_modules(remove_duplicate=False):
        places[module].append(place)
    for name, base in find_targets(model, targets).items():
        modules[name] = AdaptedProjection(name, base, space, routing, seed, sparse_gradients)
        for place in places[base]:
            model.set_submodule(place, modules[name])
    adapter = Adapter(model.name_or_path, space, modules, routing)
    accept_features(model, adapter)
    return adapter


def load_adapter(model: PreTrainedModel, source: str | Path, revision: str | None = None) -> Adapter:
    """Inject a saved adapter into its base model, with all of its features.

    Args:
        model: the base model that it was trained on; changed in place.
        source: the folder that `Adapter.save_pretrained` wrote, or `owner/name` on Hugging Face's hub.
        revision: the hub's branch, tag or commit; None is its main branch.

    Raises:
        UserError: there is no such adapter, it is broken, or it is of another base (it names what differs).
    """
    saved = SavedAdapter.read(source, revision)
    if saved.base != model.name_or_path:
        log.warning("%s was trained on %s, and is loaded into %s", source, saved.base, model.name_or_path)
    if misfit := find_misfit(model, saved.targets):
        raise UserError(
            f"{source} is of another base model, {saved.base}: {type(model).__name__} has {misfit}"
        )
    require_finite(saved.pools)
    adapter = inject(model, FeatureSpace(saved.ranks), "|".join(map(re.escape, saved.targets)))
    adapter.load_state_dict(saved.pools, saved.ranks)
    return adapter


def _keep_gradients(model: PreTrainedModel) -> None:
    """Let four-bit projections of bitsandbytes stay as they are: on some CPUs, evaluation packs them anew.

    From then on they give no gradient.
    """
    for name, module in model.named_modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
            if getattr(module.weight.quant_state, "packing_format_for_cpu", False):
                raise UserError(
                    f"{name} gives no gradient any more, as bitsandbytes packed it in an evaluation: "
                    "load the model again, and inject the adapter first"
                )


def require_finite(pools: Mapping[str, Tensor]) -> None:
    """Raise UserError, naming the pool, if a value is not finite."""
    for key, pool in pools.items():
        if not pool.isfinite().all():
            raise UserError(f"{key} holds a value that is not finite")


def _select_rows(selected: Tensor, grad: Tensor) -> Tensor:
    """Return a pool's gradient without the rows that are not `selected`, bool [R + 1]."""
    if not grad.is_sparse:
        return grad * selected.to(grad.device)[:, None]
    kept = selected.to(grad.device)[grad._indices()[0]]
    return torch.sparse_coo_tensor(grad._indices()[:, kept], grad._values()[kept], grad.shape)


def _differences(what: str, found: Mapping[str, Any], wanted: Mapping[str, Any], value: str) -> list[str]:
    changed = [key for key in wanted if found.get(key, wanted[key]) != wanted[key]]
    parts = {
        f"no {what}": [key for key in wanted if key not in found],
        f"unexpected {what}": [key for key in found if key not in wanted],
        f"another {value}:": [f"{key} {found[key]} instead of {wanted[key]}" for key in changed],
    }
    return [f"{part} {list_names(keys)}" for part, keys in parts.items() if keys]
