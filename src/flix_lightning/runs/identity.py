"""The identity of a run: a hash of all that decides its result, and of nothing else."""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flix_lightning.common.settings import deciding, plain
from flix_lightning.models import base as models
from flix_lightning.runs import rows
from flix_lightning.runs.settings import SETTINGS

if TYPE_CHECKING:
    from flix_lightning.runs.run import Run


def run_id(run: "Run") -> str:
    """Hash the settings that decide a run's result, and the content of its data, base and earlier run.

    A file is known by its content, so that the id does not change where files are moved. Raises UserError if
    data, a base or an earlier run is missing.
    """
    cfg, mixture = run.cfg, run.mixture
    datasets = [*mixture.train, *mixture.evaluate]
    base = models.fingerprint(run.pretrained, cfg.model.revision, run.chat_template)
    if cfg.model.vocabulary != "all":  # the files decide which tokens are kept
        base += f" with the vocabulary of the {cfg.model.vocabulary}"
    # Runs from before these two settings keep their id.
    start = {"start": run.start.deciding} if run.start else {}
    names = run.tasks.deciding_names(dataset.language for dataset in datasets)
    languages = {"languages": names} if names else {}
    return hash_settings(
        start
        | languages
        | {
            "schema": rows.SCHEMA,
            "base": base,
            "files": run.layout.fingerprint(mixture.paths(run.layout)),
            "datasets": [len(mixture.train), [dataset.attributes for dataset in datasets]],
            "sampling": [str(mixture.temperature), mixture.cap, mixture.report],
            "tasks": [run.tasks.get(name).deciding() for name in sorted({one.task for one in datasets})],
            "lengths": [cfg.data.max_input_length, cfg.data.max_target_length],
            "ranks": dict(run.ranks),
            "dropout": plain(cfg.flix.dropout),
            "controls": plain(cfg.flix.controls),
            **deciding(cfg, SETTINGS),
        }
    )


def hash_settings(deciding: Mapping[str, Any]) -> str:
    """Hash plain data (mappings, lists, strings, numbers, booleans, None) into 10 hexadecimal digits.

    The order of keys does not matter, and 0 and 0.0 are one number. Raises TypeError for other data.
    """
    canonical = json.dumps(_one_number(deciding), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def _one_number(value: Any) -> Any:
    """A dropout of 0, as YAML has it, and of 0.0, as a command line has it, must not be two runs."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case Mapping():
            return {key: _one_number(item) for key, item in value.items()}
        case list() | tuple():
            return [_one_number(item) for item in value]
        case _:
            return value
