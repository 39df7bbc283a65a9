"""What the commands share: Hydra on `conf/`, mistakes as one line, sweeps as lists of configs."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

# Set before Hydra reads it: mistakes come to `hydra_main`, which has one line for them.
TRACEBACK = "HYDRA_FULL_ERROR" in os.environ
os.environ["HYDRA_FULL_ERROR"] = "1"

import hydra  # noqa: E402
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: E402
from hydra.core.hydra_config import HydraConfig  # noqa: E402
from hydra.core.override_parser.overrides_parser import OverridesParser  # noqa: E402
from hydra.errors import (  # noqa: E402
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    OverrideParseException,
)
from hydra.types import RunMode  # noqa: E402
from omegaconf import DictConfig, OmegaConf  # noqa: E402
from omegaconf.errors import OmegaConfBaseException  # noqa: E402
from yaml import YAMLError  # noqa: E402

from flix_lightning.common.errors import UserError, did_you_mean  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[3]

# Sweeps lie beside conf/, wherever the command is called from.
OmegaConf.register_new_resolver("repository", lambda: str(REPOSITORY), replace=True)

#: What a mistake in a config or a command ends in, or a full or locked disk, or a package that is not there.
REPORTED_ERRORS = (UserError, HydraException, OmegaConfBaseException, YAMLError, OSError, ModuleNotFoundError)

_NOISE = ("httpx", "filelock", "fsspec", "datasets", "lightning.pytorch.utilities.rank_zero")


def hydra_main(task: Callable[[DictConfig], object], config: str = "train") -> None:
    """Run `task` on the composed `conf/<config>.yaml`, or on each config of a multirun.

    A mistake ends in one line, and exit code 1.

    A multirun does its other jobs first. HYDRA_FULL_ERROR=1 in the environment asks for tracebacks.
    """
    quiet_libraries()
    began = False  # a job, so that Hydra has composed its config
    failed = False
    process = os.getpid()

    @wraps(task)
    def job(cfg: DictConfig) -> object:
        nonlocal began, failed
        began = True
        elsewhere = os.getpid() != process  # where a launcher runs several jobs at once
        if elsewhere:
            quiet_libraries()
        try:
            return task(cfg)
        except REPORTED_ERRORS as error:
            if TRACEBACK:
                raise
            # Here, as Hydra would say the overrides before it, and only one job's of a multirun.
            print_error(error, config)
            if elsewhere:
                raise  # for all that this process learns of it
            failed = True  # and not the error, which holds the run's model
            return None

    main = hydra.main(version_base="1.3", config_path=str(REPOSITORY / "conf"), config_name=config)(job)
    with errors_as_lines(config):
        try:
            main()
        except REPORTED_ERRORS:
            raise
        except ValueError as error:  # Hydra's own, of overrides such as flix=null
            if began:
                raise
            raise UserError(f"{error}: {' '.join(sys.argv[1:])}") from error
    if failed:
        sys.exit(1)


@contextmanager
def errors_as_lines(config: str = "train") -> Iterator[None]:
    """End the process on a mistake in the command of `conf/<config>.yaml`: one line, and exit code 1.

    HYDRA_FULL_ERROR=1 in the environment asks for the traceback.
    """
    try:
        yield
    except REPORTED_ERRORS as error:
        if TRACEBACK:
            raise
        print_error(error, config)
        sys.exit(1)


def quiet_libraries() -> None:
    """Leave out of the terminal what a user can do nothing about."""
    warnings.filterwarnings("ignore", module=r"(lightning|torch|transformers|datasets|multiprocess)\b")
    for name in _NOISE:
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def print_error(error: Exception, config: str = "train") -> None:
    """Print a mistake in the command of `conf/<config>.yaml` as one line."""
    print(f"error: {error_line(error, config)}", file=sys.stderr)


def error_line(error: Exception, config: str = "train") -> str:
    """A mistake in the command of `conf/<config>.yaml` as one line."""
    if isinstance(error, InstantiationException) and isinstance(error.__cause__, UserError):
        error = error.__cause__  # what the called function itself had to say
    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError):
        return f"{text}: pip install --constraint constraints.txt --editable . brings all that is needed"
    if missing := re.search(r"Missing mandatory value: (\S+)", text):  # its own, or of what refers to it
        return f"{missing[1]} has no value; give {missing[1]}=VALUE"
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: Hydra cannot read it; KEY=VALUE is needed, and special characters stand in "
            "quotes within quotes, as in \"KEY='(a|b)'\""
        )
    if isinstance(error, ConfigCompositionException) and error.__cause__:
        misspelt = re.match(r"Could not override '([^']+)'", text)
        known = _keys(_compose([], config))
        if misspelt and misspelt[1] not in known:  # Hydra would have it added with a +
            return (
                f"{misspelt[1]}: no such key or group; {did_you_mean(misspelt[1], known)}"
                f"`python {config}.py --cfg job` prints them all"
            )
        return f"{misspelt[1] if misspelt else text}: {error.__cause__}".splitlines()[0]
    return text.partition(" Config search path:")[0]


def _keys(cfg: DictConfig, prefix: str = "") -> list[str]:
    """Every key of a config, with dots."""
    keys = [f"{prefix}{key}" for key in cfg]
    parts = [(key, cfg._get_node(key)) for key in cfg]
    return keys + [
        deeper
        for key, part in parts
        if isinstance(part, DictConfig)
        for deeper in _keys(part, f"{prefix}{key}.")
    ]


def is_multirun() -> bool:
    """Whether the running job is one of several."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def paper_sweeps() -> list[str]:
    """The sweeps of the paper's tables, by number, and of its figures."""
    names = [
        path.stem for kind in ("table", "figure") for path in (REPOSITORY / "sweeps").glob(f"{kind}*.yaml")
    ]
    return sorted(names, key=lambda name: (name.startswith("figure"), len(name), name))


def sweep_configs(overrides: Sequence[str]) -> list[DictConfig]:
    """The config of each job that `python train.py -m <overrides>` would run, in its order."""
    try:
        parser = OverridesParser.create()
        given = parser.parse_overrides(list(overrides))
        fixed = [override.input_line for override in given if not override.is_sweep_override()]
        params = _compose(fixed, return_hydra_config=True).hydra.sweeper.params or {}
        parsed = parser.parse_overrides([f"{key}={value}" for key, value in params.items()])
        jobs = BasicSweeper.split_arguments([*parsed, *given], max_batch_size=None)
        return [_compose(list(job)) for batch in jobs for job in batch]
    except REPORTED_ERRORS:
        raise
    except ValueError as error:  # as in `hydra_main`
        raise UserError(f"{error}: {' '.join(overrides)}") from error


def _compose(overrides: list[str], config: str = "train", **options: bool) -> DictConfig:
    with hydra.initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return hydra.compose(config, overrides=overrides, **options)
