"""The engine that answers texts: a finished run, with features mixed freely in a batch.

A run tests each task with the checkpoint that was selected for it. The predictor holds all these checkpoints
in one adapter, each under a prefix of its own. So a batch may mix tasks, and each text is answered by the
checkpoint of its task.
"""

import logging
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from omegaconf import DictConfig
from transformers.utils.logging import disable_progress_bar

from flix_lightning.adapter.features import FeatureSpace
from flix_lightning.adapter.projection import Adapter, inject
from flix_lightning.common.cli import REPORTED_ERRORS
from flix_lightning.common.errors import UserError
from flix_lightning.data.batches import Collator, EvaluationPlan
from flix_lightning.inference.processes import Processes
from flix_lightning.inference.requests import Request, RequestReader, log_unused
from flix_lightning.models.base import Base
from flix_lightning.models.generation import Generator
from flix_lightning.runs.run import Run
from flix_lightning.training.processes import run_environment

log = logging.getLogger(__name__)

#: Batches of a window. A killed process loses at most one window, and more devices than this have no work.
WINDOW = 8

#: Characters after which a window ends early, so that a few very long texts do not fill the memory.
WINDOW_CHARACTERS = 2**22


class Predictor:
    """A finished run that answers texts, with its base model and its adapters without their optimizer.

    Args:
        run: its folder.
        checkpoint: name of the checkpoint that answers; None is, for each task, the one that tested it.
        batch_size: texts generated for at once; None is as in the run's evaluation.
        accelerator: as Lightning names it.
        precision: as Lightning names it; None is the run's.
        processes: those that answer together; None is this one alone.

    Attributes:
        requests: makes requests of lines and examples.
        checkpoints: name -> checkpoint of all that may answer.
        batch_size: texts that are generated for at once.
        cut: how many texts were cut so far, as they were longer than the run's inputs.

    Raises:
        UserError: there is no finished run or no such checkpoint; the base or a checkpoint cannot be read; or
            Lightning refuses the accelerator or the precision.
    """

    def __init__(
        self,
        run: str | Path | Run,
        checkpoint: str | None = None,
        *,
        batch_size: int | None = None,
        accelerator: str = "auto",
        precision: str | None = None,
        processes: Processes | None = None,
    ):
        run = run if isinstance(run, Run) else Run.open(run)
        self.checkpoints = {name: run.checkpoint(name) for name in run.selectable_checkpoints(checkpoint)}
        self._processes = processes or Processes()
        precision = precision or run.cfg.trainer.precision
        environment = self._processes.environment
        try:
            self._fabric = Fabric(
                accelerator=accelerator,
                devices=environment.world_size(),
                precision=precision,
                plugins=[environment],
            )
        except (ValueError, RuntimeError) as error:
            raise UserError(f"Lightning refuses the accelerator or precision: {error}") from error
        base = run.load_base(whole_vocabulary=True)
        adapter = self._inject(base, run.cfg.model.targets)
        ranks = {feature: rank for one in self.checkpoints.values() for feature, rank in one.ranks.items()}
        self.requests = RequestReader(run, ranks, checkpoint)
        self.batch_size = batch_size or run.cfg.evaluation.batch_size
        self._tokenization = run.tokenization(base)
        self._collator = Collator.of(base.tokenizer, base.is_encoder_decoder)
        self._generate = Generator(base, adapter, run.cfg.data.max_target_length)
        self.cut = 0
        options = {"batch_size": self.batch_size, "accelerator": accelerator, "precision": precision}
        self._processes.send({"run": run.path, "checkpoint": checkpoint, **options})

    def _inject(self, base: Base, targets: str) -> Adapter:
        """Give the base the features of all checkpoints, each named after its checkpoint too."""
        ranks = {
            _prefixed(name, feature): rank
            for name, one in self.checkpoints.items()
            for feature, rank in one.ranks.items()
        }
        pools = [one.pools for one in self.checkpoints.values()]
        convert = self._fabric.strategy.precision.convert_module
        # First the base: `inject` refuses one that overflows in this type, and makes pools at least as wide.
        convert(base.model)
        adapter = inject(base.model, FeatureSpace(ranks), targets)
        adapter.load_state_dict({key: torch.cat([one[key] for one in pools]) for key in pools[0]}, ranks)
        convert(base.model)  # the pools too, as Lightning's trainer does
        base.model.to(self._fabric.device)
        return adapter

    def predict(self, lines: Sequence[Mapping[str, Any]]) -> list[str]:
        """Answer lines in their order, as `RequestReader.from_line` reads them; log what cannot be used.

        Raises:
            UserError: as `RequestReader.from_line`, naming the line by its number, from 1.
        """
        read = [self.requests.from_line(line, f"line {n}") for n, line in enumerate(lines, start=1)]
        log_unused(read)
        return self.answer(read)

    def generate(self, texts: Sequence[str], features: Sequence[Collection[str]]) -> list[str]:
        """Answer texts as they stand, without a prompt; log what cannot be used.

        Args:
            texts: what the model reads.
            features: "kind:name" of each text. An unknown feature is dropped.

        Raises:
            UserError: there are not as many lists of features as texts.
        """
        if len(texts) != len(features) or any(isinstance(names, str) for names in features):
            raise UserError(
                f"features={features}: for each of the {len(texts)} texts, a list of kind:name is needed"
            )
        read = [self.requests.from_text(*one) for one in zip(texts, features, strict=True)]
        log_unused(read)
        return self.answer(read)

    def answer(self, requests: Sequence[Request]) -> list[str]:
        """Answer requests in their order. Texts of like length share a batch; processes share the batches."""
        if not requests:
            return []
        self._processes.send(requests)
        ids, cut = self._tokenization.inputs([one.text for one in requests])
        self.cut += sum(cut)

        def answer_batch(members: list[int]) -> list[str]:
            batch = self._collator.for_generation([ids[i] for i in members])
            asked = [requests[i] for i in members]
            features = [[_prefixed(one.checkpoint, name) for name in one.features] for one in asked]
            with self._fabric.autocast(), torch.inference_mode():
                return self._generate(self._fabric.to_device(batch), features)

        lengths = np.array([len(one) for one in ids])
        batches = EvaluationPlan(np.arange(len(ids)), lengths, self.batch_size).batches
        answers = [""] * len(requests)
        for members, texts in zip(batches, self._processes.map(answer_batch, batches), strict=True):
            for i, text in zip(members, texts, strict=True):
                answers[i] = text
        return answers

    def log_cut(self, texts: int) -> None:
        """Log how many of `texts` inputs were cut."""
        if self.cut:
            log.warning("of %d texts, longer than the run's inputs, so cut: %d", texts, self.cut)


@contextmanager
def lead_processes(cfg: DictConfig, script: str) -> Iterator[Processes]:
    """Do the block in the leading process. The others help it to answer until the block ends, and exit.

    Args:
        cfg: has `accelerator` and `devices`.
        script: the command, for errors.

    Raises:
        UserError: as `run_environment`.
    """
    processes = Processes(run_environment(cfg, script, section=""))
    if not processes.leads:
        _follow(processes)
        sys.exit()
    try:
        yield processes
    except REPORTED_ERRORS:
        with suppress(UserError):  # the others have exited already
            processes.release()
        raise
    processes.release()


def _follow(processes: Processes) -> None:
    logging.disable()
    disable_progress_bar()
    try:
        if options := processes.receive():
            model = Predictor(**options, processes=processes)
            while requests := processes.receive():
                with suppress(UserError):  # the leading process raises it too
                    model.answer(requests)
    except KeyboardInterrupt:
        sys.exit(1)


def windows(requests: Iterable[Request], batch_size: int) -> Iterator[list[Request]]:
    """Cut requests into windows of WINDOW batches. Within a window, texts are sorted by length."""
    window, characters = [], 0
    for request in requests:
        window.append(request)
        characters += len(request.text)
        if len(window) == WINDOW * batch_size or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def _prefixed(checkpoint: str, feature: str) -> str:
    """Name a checkpoint's feature in the adapter that holds several checkpoints."""
    return f"{checkpoint}/{feature}"
