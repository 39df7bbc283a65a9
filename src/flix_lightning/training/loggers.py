"""Loggers of a run, and what an evaluation sends to them."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from typing import Any

import wandb
from hydra.utils import instantiate
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from omegaconf import DictConfig

from flix_lightning.common.errors import UserError
from flix_lightning.common.settings import plain
from flix_lightning.runs.rows import Row, macro_averages
from flix_lightning.runs.run import Run

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
_COLUMNS = ("step", "split", "task", "language", "seen", "active", "metric", "value", "n")


@contextmanager
def open_loggers(cfg: Mapping[str, Mapping[str, Any]], run: Run) -> Iterator[list[Logger]]:
    """Open the config's loggers, and close them however the block ends.

    A logger that fails later is only reported: the run trains, saves and ends without it.

    Args:
        cfg: name -> a Hydra `_target_` that takes the run and gives a context manager of a Lightning logger,
            such as `wandb_logger` and `csv_logger` here.
        run: the run they log.

    Raises:
        UserError: an entry that is no logger.
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
            if error not in args:  # the block's own error, which a context manager's exit passes on
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
    """Log to W&B, by default into the run's folder with no account; marked failed when the block raises.

    Raises:
        UserError: an unknown mode, or W&B cannot start (no account or network when online).
    """
    if mode not in MODES:
        raise UserError(f"logger.wandb.mode (or WANDB_MODE) is {mode!r}, expected one of {', '.join(MODES)}")
    run.path.mkdir(parents=True, exist_ok=True)
    try:
        # Made here and not by WandbLogger: its offline=True would set WANDB_MODE for every later job of this
        # process, and it would take over a run that is still open.
        experiment = wandb.init(
            project=project,
            entity=entity,
            id=run.id,
            name=run.name,
            group=run.cfg.mixture.name,
            tags=[run.method, run.cfg.mixture.name, *run.cfg.tables],
            job_type="train",
            config=plain(run.cfg),
            dir=run.path,
            mode=mode,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
    except (wandb.Error, ValueError) as error:  # this for settings that are none
        reason = " ".join(str(error).split())
        raise UserError(
            f"W&B does not start ({mode}): {reason}; logger.wandb.mode=offline needs no account"
        ) from error
    experiment.define_metric("trainer/global_step")
    experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    exit_code = 1
    try:
        yield WandbLogger(project=project, save_dir=run.path, experiment=experiment)
        exit_code = 0
    finally:
        try:
            experiment.finish(exit_code=exit_code)
        except Exception:  # W&B's service is gone: SLURM ends every process of a job
            with suppress(Exception):
                wandb.teardown()  # or else it raises at exit, and the next run finds no service
            raise


def log_evaluation(loggers: Sequence[Logger], rows: Sequence[Row], step: int) -> None:
    """Send one evaluation's scores: flat scalars to every logger, and one table of all rows to W&B.

    Scalars are `val/<task>/<language>/<metric>` and `val/<task>/mean`, the macro average over seen languages
    (`mean_unseen_combination` and so on for the others); `test/…` in the test. A control, where only some
    features are on, stands apart: `test_none/…`.

    Args:
        loggers: from `open_loggers`.
        rows: validation or test rows, all of one evaluation.
        step: the optimiser step.
    """
    scalars = _scalars(rows)
    for logger in loggers:
        logger.log_metrics(scalars, step)
        if isinstance(logger, WandbLogger):
            # A wandb.Table is frozen once it is logged: each evaluation has its own.
            data = [[getattr(row, column) for column in _COLUMNS] for row in rows]
            logger.log_table(f"{_prefix(rows[0].split)}/scores", columns=list(_COLUMNS), data=data, step=step)
        logger.save()


def mean_key(prefix: str, task: str, seen: str) -> str:
    """What the macro average over a task's languages is logged as; `prefix` as `val`, `seen` as in a row."""
    return f"{prefix}/{task}/mean" + ("" if seen == "seen" else f"_{seen}")


def _prefix(split: str, active: str = "all") -> str:
    name = "val" if split == "validation" else split
    return name if active == "all" else f"{name}_{active}"


def _scalars(rows: Sequence[Row]) -> dict[str, float]:
    scalars = {
        f"{_prefix(row.split, row.active)}/{row.task}/{row.language}/{row.metric}": row.value for row in rows
    }
    for (active, task, seen), value in macro_averages(rows).items():
        scalars[mean_key(_prefix(rows[0].split, active), task, seen)] = value
    return scalars
