"""Loggers of a run, and what an evaluation sends to them."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from statistics import fmean
from typing import Any

import wandb
from hydra.utils import instantiate
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from omegaconf import DictConfig

from flix_lightning.common.errors import UserError, one_line
from flix_lightning.common.files import make_folder
from flix_lightning.common.settings import decides, overrides, plain
from flix_lightning.runs.rows import Row, macro_averages, mean_key
from flix_lightning.runs.run import Run
from flix_lightning.runs.settings import SETTINGS

log = logging.getLogger(__name__)

MODES = ("offline", "online", "disabled")

#: Methods of a logger that the run or Lightning calls.
_METHODS = (
    "after_save_checkpoint",
    "finalize",
    "log_graph",
    "log_hyperparams",
    "log_metrics",
    "log_table",
    "save",
)
#: Short forms of settings in the names of W&B's runs, and the most characters of a name without its seed.
_SHORT = {"dropout": "p", "learning_rate": "lr", "max_steps": "steps"}
_LONGEST_NAME = 110

_COLUMNS = ("step", "split", "task", "language", "seen", "active", "metric", "value", "n")


@contextmanager
def open_loggers(cfg: Mapping[str, Mapping[str, Any]], run: Run) -> Iterator[list[Logger]]:
    """Open the config's loggers, and close them when the block ends or raises.

    A logger that fails later only causes a warning: the run trains, saves and ends without it.

    Args:
        cfg: name -> a call with a `_target_`, which takes the run and returns a context manager of a
            Lightning logger, such as `wandb_logger` and `csv_logger` here.
        run: the run.

    Raises:
        UserError: an entry is not such a call.
    """
    for name, entry in cfg.items():
        if not isinstance(entry, Mapping | DictConfig) or not isinstance(entry.get("_target_"), str):
            raise UserError(f"logger.{name} is {entry!r}; a mapping with a _target_ is needed")
    with ExitStack() as stack:
        loggers = []
        for name, entry in cfg.items():
            opened = instantiate(entry, run)
            logger = opened.__enter__()
            stack.push(_reporting(name, opened.__exit__))
            for method in _METHODS:
                if hasattr(logger, method):
                    setattr(logger, method, _reporting(name, getattr(logger, method)))
            loggers.append(logger)
        yield loggers


def _reporting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Make a logger's method report its error as a warning instead of raising it."""

    @wraps(call)
    def reporting(*args: Any, **options: Any) -> Any:
        try:
            return call(*args, **options)
        except Exception as error:
            if error not in args:  # `__exit__` gets the error of the block itself as an argument
                log.warning("logger.%s fails, the run goes on: %r", name, error)
            return None

    return reporting


@contextmanager
def csv_logger(run: Run) -> Iterator[CSVLogger]:
    """Log into `metrics/version_<k>/metrics.csv` of the run's folder; a resumed run gets the next k."""
    logger = CSVLogger(run.path, name=run.metrics.name)
    try:
        yield logger
    finally:
        logger.finalize("finished")


@contextmanager
def wandb_logger(run: Run, project: str, entity: str | None, mode: str) -> Iterator[WandbLogger]:
    """Log to W&B, by default into the run's folder without an account. If the block raises, mark it failed.

    Raises:
        UserError: the mode is unknown, or W&B cannot start (without an account or a network when online, or
            because WANDB_SERVICE names a process of W&B that has ended).
    """
    if mode not in MODES:
        raise UserError(f"logger.wandb.mode (or WANDB_MODE) is {mode!r}, expected one of {', '.join(MODES)}")
    make_folder(run.path)
    name = _display_name(run)
    try:
        # WandbLogger itself would set WANDB_MODE for every later job of this process if offline, and would
        # take over a run that is still open.
        experiment = wandb.init(
            project=project,
            entity=entity,
            id=run.id,
            name=f"{name} s{run.cfg.seed}",
            group=name,  # of the seeds
            job_type=run.cfg.mixture.name,
            tags=[run.method, run.cfg.mixture.name, *run.cfg.tables],
            config=plain(run.cfg),
            dir=run.path,
            mode=mode,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
    except Exception as error:  # W&B's own errors have no common class
        reason = one_line(error)
        raise UserError(
            f"W&B does not start ({mode}): {reason}; logger.wandb.mode=offline needs no account, "
            "logger=[csv] needs no W&B"
        ) from error
    experiment.define_metric("trainer/global_step")
    experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    experiment.define_metric("facts/*", step_metric="trainer/global_step", step_sync=True, hidden=True)
    exit_code = 1
    try:
        yield WandbLogger(project=project, save_dir=run.path, experiment=experiment)
        exit_code = 0
    finally:
        try:
            experiment.finish(exit_code=exit_code)
        except Exception:  # W&B's service is gone, as SLURM ends every process of a job
            with suppress(Exception):
                wandb.teardown()  # otherwise it raises at exit, and the next run finds no service
            raise


def _display_name(run: Run) -> str:
    """Name the method, the mixture, and the settings of the command line: `flix-joint p=0.3`."""
    given = overrides()
    names = {key: _SHORT.get(last := key.rpartition(".")[2], last) for key in given if _is_named(key)}
    parts = [f"{names[key]}={given[key].rpartition('/')[2]}" for key in names]
    return " ".join([f"{run.method.lower()}-{run.cfg.mixture.name}", *parts])[:_LONGEST_NAME]


def _is_named(key: str) -> bool:
    """Whether a setting decides the result, and is not in the rest of the name."""
    if key.partition(".")[0] in ("seed", "mixture", "data", "evaluation") or key == "flix.controls":
        return False
    return key == "model" or decides(key, SETTINGS)


def log_evaluation(loggers: Sequence[Logger], rows: Sequence[Row], step: int) -> None:
    """Log all scores of a validation or of the test, as scalars, and to W&B also as a table.

    The scalars are `val/<task>/<language>/<metric>`; `val/<task>/mean`, the macro average over the languages
    of a task; and `val/mean`, the average of these. These averages are over trained datasets; averages over
    the others are named `val/mean_unseen_language` and so on. The table is `val/scores`. In the test, `val`
    becomes `test`. A control, which has only some features on, has its own name, as `test_none`.

    Args:
        loggers: from `open_loggers`.
        rows: validation or test rows.
        step: the number of optimizer steps done. The step in a test row is that of its checkpoint.
    """
    if not rows:
        return
    scalars, tables = _scalars(rows), {}
    for prefix in dict.fromkeys(map(_prefix, rows)):
        # A wandb.Table is frozen once it is logged: each evaluation has its own.
        data = [[getattr(row, column) for column in _COLUMNS] for row in rows if _prefix(row) == prefix]
        tables[f"{prefix}/scores"] = wandb.Table(columns=list(_COLUMNS), data=data)
    for logger in loggers:
        logger.log_metrics(scalars | tables if isinstance(logger, WandbLogger) else scalars, step)
        logger.save()


def log_facts(loggers: Sequence[Logger], facts: Mapping[str, float], step: int) -> None:
    """Log run-level facts, as `facts/total_parameters`. A later value replaces an earlier one."""
    for logger in loggers:
        logger.log_metrics({f"facts/{name}": value for name, value in facts.items()}, step)
        logger.save()


def _prefix(row: Row) -> str:
    name = "val" if row.split == "validation" else row.split
    return name if row.active == "all" else f"{name}_{row.active}"


def _scalars(rows: Sequence[Row]) -> dict[str, float]:
    scalars = {f"{_prefix(row)}/{row.task}/{row.language}/{row.metric}": row.value for row in rows}
    prefixes, over_tasks = {row.active: _prefix(row) for row in rows}, defaultdict(list)
    for (active, task, seen), value in macro_averages(rows).items():
        scalars[mean_key(prefixes[active], task, seen)] = value
        over_tasks[mean_key(prefixes[active], None, seen)].append(value)
    return scalars | {key: fmean(values) for key, values in over_tasks.items()}
