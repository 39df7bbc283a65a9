"""The sweeps of the paper's Tables 6 to 50, which follow from the columns of Tables 1 and 2.

Hydra reads them from its ConfigStore, beside the files of sweeps/: `python train.py -m +sweeps=table30`.
"""

import re
from collections.abc import Iterable

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from flix_lightning.common.scripts import CONF
from flix_lightning.reports.columns import APPENDIX, METHODS

PAPER = (*(f"table{number}" for number in range(1, 51)), "figure2")
"""The sweeps of the paper's tables and figure."""


def register(overrides: Iterable[str]) -> None:
    """Make the sweeps that overrides name known to Hydra. A launcher passes them on to its processes.

    Hydra copies what it knows again and again, so that all of them would make it slow.
    """
    for number in map(int, re.findall(r"\bsweeps=table(\d+)", " ".join(overrides))):
        if number in APPENDIX:
            sweep = {"tables": [f"table{number}"], "hydra": {"sweeper": {"params": _params(number)}}}
            ConfigStore.instance().store(f"table{number}", sweep, group="sweeps", package="_global_")


def _params(number: int) -> dict[str, str | int]:
    column, method = APPENDIX[number]
    run = {"flix": METHODS[method], "seed": 0}
    if number != column.single:
        return {"mixture": column.mixture, **run}
    train = OmegaConf.load(CONF / "mixture" / f"{column.mixture}.yaml").train
    tasks = dict.fromkeys(entry.task for entry in train)
    languages = dict.fromkeys(language for entry in train for language in entry.languages)
    single = {"mixture.task": ",".join(tasks), "mixture.language": ",".join(languages)}
    return {"mixture": "single_dataset", **single, **run}
