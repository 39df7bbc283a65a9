"""Export what a run trained: a combination of features as a PEFT LoRA or a plain model, or all features.

The sum of a combination's updates (eq. 2 of the paper) is one LoRA whose rank is the sum of theirs.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path

import torch
from huggingface_hub import ModelCard, ModelCardData
from omegaconf import DictConfig
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from flix_lightning.adapter.features import MAX_RANK
from flix_lightning.adapter.projection import require_finite
from flix_lightning.adapter.saving import SavedAdapter, find_misfit
from flix_lightning.common import settings
from flix_lightning.common.errors import UserError, list_names, one_line
from flix_lightning.common.files import atomic_folder
from flix_lightning.data.attributes import Attribute, known_attributes
from flix_lightning.inference.settings import RUN
from flix_lightning.models.base import Base
from flix_lightning.runs.checkpoints import Checkpoint
from flix_lightning.runs.run import Run

log = logging.getLogger(__name__)

#: What each setting of `conf/export.yaml` may be.
_SETTINGS = {
    **RUN,
    "out": settings.TEXT,
    "format": settings.choice("peft", "flix"),
    "features": settings.nullable(
        settings.Kind(
            "a list as [task:ner,language:sw], or all", lambda value: value == "all" or _are_features(value)
        )
    ),
    "merge": settings.BOOLEAN,
    "pad_rank": settings.nullable(settings.integer(1, MAX_RANK)),
}


def export(cfg: DictConfig) -> Iterator[Path]:
    """Write what `conf/export.yaml` asks for, and give each folder written.

    Raises:
        UserError: a value is out of its choices; or as `Run.open`, `Checkpoint.read`, `write_lora` and
            `write_merged`. All combinations are checked before the first is written.
    """
    _check(cfg)
    run, out = Run.open(cfg.run), Path(cfg.out)
    if cfg.format == "flix":
        _check_new(out)
        checkpoint = run.checkpoint(run.select_checkpoint(cfg.checkpoint, []))
        write_flix(run, checkpoint, run.load_base(whole_vocabulary=True), out)
        yield out
        return
    read = cache(run.checkpoint)
    if cfg.features == "all":
        ranks = read(run.select_checkpoint(cfg.checkpoint, [])).ranks
        combinations = _combinations(ranks, run.attributes)
        places = [out / _folder_name(one) for one in combinations]
        names = [run.select_checkpoint(cfg.checkpoint, _tasks(features)) for features in combinations]
        checkpoints = list(map(read, names))
    else:
        checkpoints = [read(run.select_checkpoint(cfg.checkpoint, _tasks(cfg.features)))]
        combinations, places = [_complete(cfg.features, checkpoints[0].ranks, run.attributes)], [out]
    for checkpoint, features, place in zip(checkpoints, combinations, places, strict=True):
        rank = checkpoint.rank(features)
        if cfg.pad_rank is not None and cfg.pad_rank < rank:
            raise UserError(
                f"pad_rank={cfg.pad_rank}: {', '.join(features)} have rank {rank}, which must fit in it"
            )
        _check_new(place)
    base = run.load_base(whole_vocabulary=True)
    for checkpoint, features, place in zip(checkpoints, combinations, places, strict=True):
        if cfg.merge:
            write_merged(run, checkpoint, base, features, place)
        else:
            write_lora(run, checkpoint, base, features, place, cfg.pad_rank)
        yield place


def _check(cfg: DictConfig) -> None:
    settings.check(cfg, _SETTINGS)
    if cfg.format == "flix":
        if given := [key for key in ("features", "merge", "pad_rank") if cfg[key]]:
            raise UserError(f"format=flix writes all features as they were trained: leave {given[0]} out")
    elif cfg.features is None:
        raise UserError("features has no value; give features=[task:NAME,language:CODE], or features=all")
    if cfg.merge and cfg.pad_rank is not None:
        raise UserError("pad_rank is for adapters, and merge=true writes none: give one of the two")


def _are_features(value: object) -> bool:
    named = value and isinstance(value, list) and all(isinstance(one, str) for one in value)
    return bool(named) and all(all(one.partition(":")) for one in value)


def _tasks(features: Collection[str]) -> list[str]:
    return [name for kind, _, name in (one.partition(":") for one in features) if kind == "task"]


def _combinations(ranks: Mapping[str, int], attributes: Sequence[Attribute]) -> list[list[str]]:
    """Return every combination of a feature of each kind, with the features that follow from it."""
    following = {one.kind for one in attributes}
    kinds: dict[str, list[str]] = {}
    for feature in ranks:
        if (kind := feature.partition(":")[0]) not in following:
            kinds.setdefault(kind, []).append(feature)
    return [_with_following(one, ranks, attributes) for one in product(*kinds.values())]


def _complete(
    features: Collection[str], ranks: Mapping[str, int], attributes: Sequence[Attribute]
) -> list[str]:
    """Add the features that follow from the given ones; log the kinds that are left out."""
    features = _with_following(features, ranks, attributes)
    kinds = {feature.partition(":")[0] for feature in features}
    trained = dict.fromkeys(feature.partition(":")[0] for feature in ranks)
    if lacking := [kind for kind in trained if kind not in kinds]:
        log.warning("the run was trained with %s too, and features names none of it", ", ".join(lacking))
    return features


def _with_following(
    features: Collection[str], ranks: Mapping[str, int], attributes: Sequence[Attribute]
) -> list[str]:
    named = {kind: name for kind, _, name in (feature.partition(":") for feature in features)}
    known = (":".join(item) for item in known_attributes(named, attributes).items())
    return list(dict.fromkeys([*features, *(feature for feature in known if feature in ranks)]))


def _folder_name(features: Collection[str]) -> str:
    name = "-".join(feature.partition(":")[2] for feature in features)
    if not settings.NAME.accepts(name):
        raise UserError(
            f"features=all: {', '.join(features)} give {name!r}, which is no name for a folder; name them in "
            "features= and the folder in out="
        )
    return name


def write_lora(
    run: Run, checkpoint: Checkpoint, base: Base, features: Collection[str], out: Path, pad_rank: int | None
) -> None:
    """Write `out` as PEFT and what reads its format expect an adapter: config, safetensors, model card.

    Args:
        run, checkpoint, base: the finished run, its adapter, and the model that this was trained on.
        features: "kind:name" each; any combination, trained together or not.
        out: a folder that is not there yet.
        pad_rank: rank to fill up to with zeros, at least the features'; None leaves it as it is.

    Raises:
        UserError: as `Checkpoint.lora`; or `base` is another one; or PEFT reads the adapter otherwise than it
            was trained. Then nothing is written.
    """
    rank = checkpoint.rank(features)
    padded, pairs = pad_rank or rank, checkpoint.lora(features)
    _check_base(base.model, _sizes(pairs), run.path)
    weights = {}
    for name, (A, B) in pairs.items():
        A, B = (nn.functional.pad(pool, (0, 0, 0, padded - rank)) for pool in (A, B))
        weights[f"base_model.model.{name}.lora_A.weight"] = A.contiguous()
        weights[f"base_model.model.{name}.lora_B.weight"] = B.T.contiguous()
    config = LoraConfig(
        task_type="SEQ_2_SEQ_LM" if base.is_encoder_decoder else "CAUSAL_LM",
        base_model_name_or_path=base.model.name_or_path,
        inference_mode=True,
        r=padded,
        lora_alpha=padded,  # so that the update is scaled by 1, as in eq. 2
        lora_dropout=0.0,
        target_modules=_target_modules(base.model, pairs),
        fan_in_fan_out=any(isinstance(base.model.get_submodule(name), Conv1D) for name in pairs),
    )
    with atomic_folder(out) as draft:
        config.save_pretrained(str(draft))
        save_file(weights, draft / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
        _card(run, checkpoint, base, features, "peft").save(draft / "README.md")
        _check_peft(base.model, draft, pairs)


def write_flix(run: Run, checkpoint: Checkpoint, base: Base, out: Path) -> None:
    """Write `out` as `load_adapter` reads it, with all features and a model card; see `write_lora`."""
    saved = SavedAdapter(_name(run, base), checkpoint.ranks, checkpoint.pools)
    require_finite(saved.pools)
    _check_base(base.model, saved.targets, run.path)
    with atomic_folder(out) as draft:
        saved.write(draft)
        _card(run, checkpoint, base, list(checkpoint.ranks), "flix-lightning").save(draft / "README.md")


def write_merged(run: Run, checkpoint: Checkpoint, base: Base, features: Collection[str], out: Path) -> None:
    """Write `out` as a plain model of the base's type, with its tokenizer; see `write_lora`.

    Raises UserError as `Checkpoint.lora`, or if `base` is another one or its projections share a weight.
    """
    weights, pairs = base.model.state_dict(), checkpoint.lora(features)
    _check_base(base.model, _sizes(pairs), run.path)
    if len({weights[f"{name}.weight"].data_ptr() for name in pairs}) < len(pairs):
        raise UserError(f"projections of {type(base.model).__name__} share a weight, so none can be merged")
    for name, (A, B) in pairs.items():
        change = A.T.double() @ B.double()
        if not isinstance(base.model.get_submodule(name), Conv1D):
            change = change.T
        weight = weights[f"{name}.weight"]
        weights[f"{name}.weight"] = weight + change.to(weight.dtype)
    with atomic_folder(out) as draft:
        base.model.save_pretrained(draft, state_dict=weights)
        base.tokenizer.save_pretrained(draft)
        _card(run, checkpoint, base, features, "transformers").save(draft / "README.md")


def _check_peft(model: PreTrainedModel, folder: Path, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Load the adapter in `folder` with PEFT, and check that it is these A and B, and nothing else.

    PEFT cannot adapt every projection: some it refuses (Mamba's), some it takes for experts' (GLM 4's).
    """
    error = f"PEFT does not read this adapter of {type(model).__name__} as it was trained"
    cure = "take merge=true, or train with other model.targets"
    try:
        loaded = PeftModel.from_pretrained(model, str(folder))
    except Exception as failure:  # whatever PEFT raises for a model that it does not support
        raise UserError(f"{error} ({one_line(failure, 200)}): {cure}") from failure
    modules = dict(loaded.base_model.model.named_modules())
    layers = {name: module for name, module in modules.items() if isinstance(module, LoraLayer)}
    unlike = sorted(layers.keys() ^ pairs.keys())
    for name in layers.keys() & pairs.keys():
        A, B = pairs[name]
        update = A.T @ B if layers[name].fan_in_fan_out else (A.T @ B).T
        if not torch.allclose(layers[name].get_delta_weight("default"), update, rtol=1e-4, atol=1e-6):
            unlike.append(name)
    loaded.unload()
    if unlike:
        raise UserError(f"{error} (it differs in {list_names(unlike)}): {cure}")


def _check_new(out: Path) -> None:
    if out.exists():
        raise UserError(f"out={out} is there already; name a folder that is not, or delete it")


def _sizes(pairs: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, tuple[int, int]]:
    return {name: (A.shape[1], B.shape[1]) for name, (A, B) in pairs.items()}


def _check_base(model: nn.Module, sizes: Mapping[str, tuple[int, int]], folder: Path) -> None:
    if misfit := find_misfit(model, sizes):
        raise UserError(
            f"{folder}: its adapter is of another base than its config's model.pretrained, which has {misfit}"
        )


def _target_modules(model: nn.Module, names: Collection[str]) -> list[str]:
    """Return the last parts of the projections' names if these name no other module, or else whole names."""
    short = sorted({name.rpartition(".")[2] for name in names})  # as servers expect them
    named = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in short}
    return short if named == set(names) else sorted(names)


def _card(run: Run, checkpoint: Checkpoint, base: Base, features: Collection[str], library: str) -> ModelCard:
    known = [feature for feature in features if checkpoint.ranks.get(feature)]
    licence, given = _licence(base.model.name_or_path), set(features)
    scores = [
        f"- test, {row.task}/{row.language} ({row.seen}): {row.metric} {row.value:.1f}, {row.n} examples"
        for row in run.rows
        if row.split == "test"
        and row.active == "all"
        and given >= {f"task:{row.task}", f"language:{row.language}"}
    ]
    called = _name(run, base)
    data = ModelCardData(base_model=called, library_name=library, license=licence, tags=["flix", "lora"])
    ranks = ", ".join(f"{feature} (rank {checkpoint.ranks[feature]})" for feature in known)
    together = "" if library == "flix-lightning" else " together"
    text = f"""---
{data.to_yaml()}
---

# {run.cfg.flix.name}: {", ".join(known)}

The updates of {ranks}{together}, from one run of Featurized Low-Rank Mixtures (Lin et al.).

- base model: `{called}`, licence: {licence or "see there"}
- training: mixture `{run.cfg.mixture.name}` of the data `{run.cfg.data.name}`, seed {run.cfg.seed}
- run: `{run.name}`, checkpoint `{checkpoint.path.stem}`
{chr(10).join(scores or ["- never tested on a dataset of just these features"])}
"""
    return ModelCard(text)


def _name(run: Run, base: Base) -> str:
    """What the base model is called."""
    pretrained = run.cfg.model.pretrained  # or a call that made it, whose folder is called after it
    return pretrained if isinstance(pretrained, str) else Path(base.model.name_or_path).name


def _licence(pretrained: str) -> str | None:
    """Return the licence that the base model's card names, if there is one."""
    card = Path(pretrained) / "README.md"
    try:
        return ModelCard.load(card if Path(pretrained).is_dir() else pretrained).data.license
    except Exception:
        return None
