"""What the commands share: Hydra with `conf/`, options, errors as one line, sweeps as lists of configs."""

import logging
import os
import re
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from itertools import chain
from pathlib import Path

# Set before Hydra reads it: Hydra raises errors instead of printing them, so that they become one line here.
TRACEBACK = "HYDRA_FULL_ERROR" in os.environ
os.environ["HYDRA_FULL_ERROR"] = "1"

import hydra  # noqa: E402
from hydra._internal.config_loader_impl import ConfigLoaderImpl  # noqa: E402
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: E402
from hydra._internal.utils import get_args_parser  # noqa: E402
from hydra.core.config_search_path import SearchPathQuery  # noqa: E402
from hydra.core.global_hydra import GlobalHydra  # noqa: E402
from hydra.core.hydra_config import HydraConfig  # noqa: E402
from hydra.core.override_parser.overrides_parser import OverridesParser  # noqa: E402
from hydra.core.override_parser.types import Override, OverrideType  # noqa: E402
from hydra.errors import (  # noqa: E402
    ConfigCompositionException,
    HydraException,
    OverrideParseException,
)
from hydra.types import RunMode  # noqa: E402
from omegaconf import DictConfig, OmegaConf, open_dict  # noqa: E402
from omegaconf.errors import OmegaConfBaseException  # noqa: E402
from yaml import YAMLError  # noqa: E402

from flix_lightning.common.errors import UserError, did_you_mean, one_line  # noqa: E402
from flix_lightning.common.scripts import CONF, HOME, name_commands  # noqa: E402

# conf/train.yaml finds sweeps/ by it, wherever the command is called from.
OmegaConf.register_new_resolver("repository", lambda: str(HOME), replace=True)

#: Errors that are the user's to mend, and so end in one line: in a config, a file, a disk, the installation.
REPORTED_ERRORS = (UserError, HydraException, OmegaConfBaseException, YAMLError, OSError, ModuleNotFoundError)

_NOISY_LOGGERS = (
    *("httpx", "filelock", "fsspec", "datasets"),
    *("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.distributed"),
)
_OPTIONS = """
--help GROUP=CHOICE    print the keys of a group
-m                     run every combination of values, as in key=1,2
--cfg job              print the composed config
--config-dir FOLDER    use configs of your own too, in folders as in conf/
--hydra-help           list all options"""


def hydra_main(task: Callable[[DictConfig], object], config: str = "train") -> None:
    """Run `task` on the composed `conf/<config>.yaml`, or on each config of a multirun.

    An error ends in one line and exit code 1; a multirun does its other jobs first. HYDRA_FULL_ERROR=1 in the
    environment asks for tracebacks.
    """
    quiet_libraries()
    started = False  # whether a job has started, so that Hydra has composed its config
    failed = False
    process = os.getpid()

    @wraps(task)
    def job(cfg: DictConfig) -> object:
        nonlocal started, failed
        started = True
        in_launcher = os.getpid() != process  # a process of a launcher that runs several jobs at once
        if in_launcher:
            quiet_libraries()
        try:
            _add_own_tasks(cfg, [one.path for one in HydraConfig.get().runtime.config_sources])
            return task(cfg)
        except REPORTED_ERRORS as error:
            if TRACEBACK:
                raise
            print_error(error, config)
            if in_launcher:
                raise  # the only way to tell the first process
            failed = True  # the error itself is not kept, as its traceback keeps the run's model alive
            return None

    main = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config)(job)
    with errors_as_lines(config):
        options = parse_options(arguments())
        if options.help:
            print_help(config, options)
            return
        sys.argv[1:] = options.ordered
        try:
            main()
        except REPORTED_ERRORS:
            raise
        except ValueError as error:  # Hydra's own, for overrides such as flix=null
            if started:
                raise
            raise UserError(f"{error}: {' '.join(sys.argv[1:])}") from error
    if failed:
        sys.exit(1)


def plain_main(main: Callable[[list[str]], int | None], text: str) -> None:
    """Run a command that takes the arguments of `python train.py -m` and trains nothing.

    `main` is called with the arguments, and returns the exit code. `--help` prints `text`.
    """
    quiet_libraries()
    logging.disable(logging.WARNING)  # each run says by itself what its data lacks
    with errors_as_lines():
        if {"--help", "-h"} & set(sys.argv):
            print(name_commands(f"{text.strip()}\n\n`python train.py --help` lists the keys."))
            return
        sys.exit(main(arguments()))


@contextmanager
def errors_as_lines(config: str = "train") -> Iterator[None]:
    """End the process on an error in the command of `conf/<config>.yaml`: one line, and exit code 1.

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
    """Keep messages of libraries that a user can do nothing about out of the terminal."""
    warnings.filterwarnings("ignore", module=r"(lightning|torch|transformers|datasets|multiprocess)\b")
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def arguments() -> list[str]:
    """Return the command's arguments. `~/` at the start of a value, which shells keep, is the home folder."""
    home = str(Path.home())
    return [re.sub("^([^=]+=)~(?=/|$)", lambda key: key[1] + home, one) for one in sys.argv[1:]]


def parse_options(arguments: Sequence[str]) -> Namespace:
    """Read Hydra's options, which may stand before, between and after the overrides.

    Beside the options, the result has `overrides` and `ordered`, the arguments as Hydra takes them: options
    first. Raises UserError for an option that does not exist, or that lacks its value.
    """
    parser = get_args_parser()

    def fail(message: str) -> None:
        raise UserError(f"{message}; --hydra-help lists the options")

    parser.error = fail
    found, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        raise UserError(
            f"{unknown[0]}: no such option; {did_you_mean(unknown[0], parser._option_string_actions)}"
            "--hydra-help lists them"
        )
    options = [one for one in arguments if one not in found.overrides]
    return Namespace(**vars(found), ordered=[*options, *found.overrides])


def print_help(config: str, options: Namespace) -> None:
    """Print the keys of `conf/<config>.yaml` with their comments, or those of the groups that are named."""
    from rich.console import Console

    from flix_lightning.common.help import help_table

    folders = [Path(options.config_dir), CONF] if options.config_dir else [CONF]
    console = Console(highlight=False, markup=False)
    named = [one.lstrip("+").partition("=") for one in options.overrides]
    groups = [(key, choice) for key, _, choice in named if any((one / key).is_dir() for one in folders)]
    if not groups:
        console.print(help_table(folders, options.config_name or config))
    for group, choice in groups:
        default = _compose(options, config, return_hydra_config=True).hydra.runtime.choices.get(group)
        console.print(help_table(folders, f"{group}/{choice or default}"))
    console.print(_OPTIONS)


def print_error(error: Exception, config: str = "train") -> None:
    """Print an error in the command of `conf/<config>.yaml` as one line."""
    print(f"error: {name_commands(error_line(error, config))}", file=sys.stderr)


def error_line(error: Exception, config: str = "train") -> str:
    """Say in one line what is wrong with the command of `conf/<config>.yaml`."""
    text = one_line(error)
    if isinstance(error, ModuleNotFoundError):
        return f"{text}: pip install --constraint constraints.txt --editable . installs what is needed"
    if missing := re.search(r"Missing mandatory value: (\S+)", text):
        return f"{missing[1]} has no value; give {missing[1]}=VALUE"
    if text.endswith("Incompatible key type 'NoneType'"):
        override = re.search(r"override (\S+):", text)
        place = override[1] if override else "a config"
        return f'{place}: YAML reads the key null or ~ as nothing; write "null" in quotes'
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: Hydra cannot read it; KEY=VALUE is needed, and special characters stand in "
            "quotes within quotes, as in \"KEY='(a|b)'\"; in {NAME:VALUE}, NAME has no quotes"
        )
    if isinstance(error, ConfigCompositionException) and error.__cause__:
        misspelt = re.match(r"Could not override '([^']+)'", text)
        known = _keys(_compose(parse_options([]), config))
        if misspelt and misspelt[1] not in known:  # Hydra would suggest to add it with a +
            return (
                f"{misspelt[1]}: no such key or group; {did_you_mean(misspelt[1], known)}"
                f"`python {config}.py --cfg job` prints them all"
            )
        return f"{misspelt[1] if misspelt else text}: {error.__cause__}".splitlines()[0]
    return text.partition(" Config search path:")[0]


def is_multirun() -> bool:
    """Whether the running job is one of several."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def sweep_configs(arguments: Sequence[str]) -> list[DictConfig]:
    """Compose the config of each job that `python train.py -m <arguments>` would run, in its order."""
    try:
        options = parse_options(arguments)
        parser = OverridesParser.create()
        given = parser.parse_overrides(options.overrides)
        fixed = [override.input_line for override in given if not override.is_sweep_override()]
        cfg = _compose(options, overrides=fixed, return_hydra_config=True)
        with open_dict(cfg):
            params = cfg.pop("hydra").sweeper.params or {}
        if not params and len(fixed) == len(given):
            return [cfg]
        parsed = parser.parse_overrides([f"{key}={value}" for key, value in params.items()])
        jobs = BasicSweeper.split_arguments([*parsed, *given], max_batch_size=None)
        return list(_compose_jobs(options, [parser.parse_overrides(list(job)) for job in chain(*jobs)]))
    except REPORTED_ERRORS:
        raise
    except ValueError as error:  # as in `hydra_main`
        raise UserError(f"{error}: {' '.join(arguments)}") from error


def _compose_jobs(options: Namespace, jobs: Iterable[Sequence[Override]]) -> Iterator[DictConfig]:
    """Compose each combination of choices once, as that takes a tenth of a second; set each job's values."""
    composed: dict[tuple, DictConfig] = {}
    for job in jobs:
        values = [
            one
            for one in job
            if one.type == OverrideType.CHANGE
            and (one.key_or_group == "seed" or "." in one.key_or_group)
            and not one.key_or_group.startswith("hydra.")
        ]
        choices = tuple(one.input_line for one in job if one not in values)
        if choices not in composed:
            composed[choices] = _compose(options, overrides=choices)
        cfg = composed[choices].copy()
        ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
        yield cfg


def _compose(
    options: Namespace, config: str = "train", overrides: Sequence[str] = (), **hydra_options: bool
) -> DictConfig:
    """Compose a config from conf/ and the options' own folder of configs."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        if options.config_dir:
            folder = Path(options.config_dir).absolute()
            if not folder.is_dir():
                raise UserError(f"--config-dir {options.config_dir}: no such folder")
            loader = GlobalHydra.instance().config_loader()
            search_path = loader.get_search_path()
            search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
            loader.repository.initialize_sources(search_path)
        cfg = hydra.compose(options.config_name or config, overrides=list(overrides), **hydra_options)
        _add_own_tasks(cfg, [one.path for one in GlobalHydra.instance().config_loader().get_sources()])
    return cfg


def _add_own_tasks(cfg: DictConfig, folders: Iterable[str]) -> None:
    """Add `task/*.yaml` of each folder of configs, except the shipped, to a config that has `tasks`.

    What the config or an earlier folder says about a task comes first.
    """
    if "tasks" in cfg:
        if not (cfg.tasks is None or OmegaConf.is_dict(cfg.tasks)):
            raise UserError(
                f"tasks is {cfg.tasks!r}; {{NAME: path of a task's YAML, or its content}} is needed"
            )
        own = [Path(folder) / "task" for folder in folders if Path(folder) != CONF]
        files = {path.stem: str(path) for folder in reversed(own) for path in sorted(folder.glob("*.yaml"))}
        cfg.tasks = {**files, **(cfg.tasks or {})}


def _keys(cfg: DictConfig, prefix: str = "") -> list[str]:
    """Every key of a config, with dots."""
    keys = []
    for key in cfg:
        keys.append(f"{prefix}{key}")
        part = cfg._get_node(key)
        if isinstance(part, DictConfig):
            keys += _keys(part, f"{prefix}{key}.")
    return keys
