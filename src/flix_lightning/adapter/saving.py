"""An adapter as a folder, or as a repository of the hub: a JSON config and one file of all features."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from flix_lightning.adapter.features import FeatureSpace
from flix_lightning.adapter.layout import find_sizes
from flix_lightning.common.errors import UserError, one_line
from flix_lightning.common.files import write_atomic

CONFIG, WEIGHTS = "flix_config.json", "flix_adapter.safetensors"

#: Version of the two files.
VERSION = 1


class SavedAdapter(NamedTuple):
    """What the two files hold.

    Attributes:
        base: name or folder of the base model.
        ranks: "kind:name" -> rank of every feature, in the order of the rows.
        pools: "<projection>.A" [R, d_in] and "<projection>.B" [R, d_out].
    """

    base: str
    ranks: Mapping[str, int]
    pools: Mapping[str, Tensor]

    @property
    def targets(self) -> dict[str, tuple[int, int]]:
        """The dotted name of each projection -> d_in, d_out."""
        names = dict.fromkeys(key.rpartition(".")[0] for key in self.pools)
        return {name: tuple(self.pools[f"{name}.{pool}"].shape[1] for pool in "AB") for name in names}

    def write(self, folder: Path) -> None:
        """Write the two files into `folder`, each whole or not at all; raises UserError as `atomic_file`."""
        config = {
            "version": VERSION,
            "base": self.base,
            "ranks": dict(self.ranks),
            "targets": list(self.targets),
        }
        pools = {key: pool.cpu().contiguous() for key, pool in self.pools.items()}
        write_atomic(folder / WEIGHTS, save(pools, metadata={"format": "pt"}))
        write_atomic(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, source: str | Path, revision: str | None = None) -> "SavedAdapter":
        """Read a folder, or a repository of the hub (as in `load_adapter`), downloaded unless it is cached.

        Raises:
            UserError: there is no such folder or repository, or it is not an adapter, naming the file.
        """
        folder = Path(source)
        if not folder.is_dir():
            folder = _download(str(source), revision)
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            pools = load_file(folder / WEIGHTS)
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(
                f"{source}: no adapter of FLix ({error}); {CONFIG} and {WEIGHTS} as `save_pretrained` writes "
                "them are needed"
            ) from error
        version = config.get("version") if isinstance(config, dict) else None
        if version != VERSION:
            raise UserError(
                f"{folder / CONFIG}: version is {version!r}; this package reads version {VERSION}"
            )
        if not isinstance(base := config.get("base"), str):
            raise UserError(f"{folder / CONFIG}: base is {base!r}; the name of a base model is needed")
        if fault := find_fault(config.get("ranks"), pools):
            raise UserError(f"{source}: {fault}")
        return cls(base, config["ranks"], pools)


def find_fault(ranks: Any, pools: Any) -> str | None:
    """Say what keeps these from being an adapter's ranks and pools, if anything does."""
    if not isinstance(ranks, dict) or not isinstance(pools, dict):
        return "its ranks or pools are no mapping"
    try:
        rows = FeatureSpace(ranks).total_rank
    except (UserError, AttributeError) as error:  # AttributeError: a name is no text
        return str(error)
    for key, pool in pools.items():
        name, _, letter = str(key).rpartition(".")
        if letter not in ("A", "B") or not {f"{name}.A", f"{name}.B"} <= pools.keys():
            return f"{key!r} is not one of a pair of pools"
        if not isinstance(pool, Tensor) or pool.ndim != 2 or len(pool) != rows:
            return f"{key} is no pool of {rows} rows, as its ranks have it"
    return None


def find_misfit(model: nn.Module, targets: Mapping[str, tuple[int, int]]) -> str | None:
    """Say which projection a model lacks, if it lacks any of these: dotted name -> d_in, d_out."""
    modules = dict(model.named_modules())
    for name, sizes in targets.items():
        module = modules.get(name)
        if not isinstance(module, nn.Linear | Conv1D) or find_sizes(module) != sizes:
            return f"no projection {name} from {sizes[0]} to {sizes[1]}"
    return None


def _download(name: str, revision: str | None) -> Path:
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        raise UserError(f"{name}: no such folder; a folder, or owner/name on Hugging Face's hub, is needed")
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:  # what the hub, the network and the cache raise
        reason = one_line(error, 200)
        raise UserError(f"{name}: no such folder, and the hub does not give it ({reason})") from error
