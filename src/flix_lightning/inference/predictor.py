"""The engine that answers texts: a finished run, with features mixed freely in a batch.

A run tests each task with the checkpoint that was selected for it. The predictor holds all these checkpoints
in one adapter, each under a prefix of its own. So a batch may mix tasks, and each text is answered by the
checkpoint of its task.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric

from flix_lightning.adapter.features import FeatureSpace
from flix_lightning.adapter.projection import Adapter, inject
from flix_lightning.common.errors import UserError
from flix_lightning.data.batches import Collator, EvaluationPlan
from flix_lightning.data.tokenization import Tokenization
from flix_lightning.inference.requests import Request, RequestReader, Tally
from flix_lightning.models.base import Base
from flix_lightning.models.generation import Generator
from flix_lightning.runs.checkpoints import Checkpoint
from flix_lightning.runs.run import Run

log = logging.getLogger(__name__)

#: Batches of a window: all that is lost where the process is killed.
WINDOW = 8

#: Characters that end a window early: a few very long texts must not fill the memory.
WINDOW_CHARACTERS = 2**22


class Predictor:
    """A finished run that answers texts; `load` makes it.

    Attributes:
        requests: makes requests of lines and examples.
        checkpoints: name -> checkpoint of all that may answer.
        batch_size: texts that are generated for at once.
        cut: how many texts were cut so far, as they were longer than the run's inputs.
    """

    def __init__(
        self,
        run: Run,
        requests: RequestReader,
        checkpoints: Mapping[str, Checkpoint],
        base: Base,
        adapter: Adapter,
        fabric: Fabric,
        batch_size: int,
    ):
        data = run.cfg.data
        self.requests, self.checkpoints, self.batch_size = requests, checkpoints, batch_size
        self._tokenization = Tokenization(
            base.tokenizer,
            base.is_encoder_decoder,
            data.max_input_length,
            data.max_target_length,
            run.chat_template,
        )
        self._collator = Collator.of(base.tokenizer, base.is_encoder_decoder)
        self._generate = Generator(base, adapter, data.max_target_length)
        self._fabric = fabric
        self.cut = 0

    def predict(self, lines: Sequence[Mapping[str, Any]]) -> list[str]:
        """Answer lines in their order, as `RequestReader.from_line` reads them; log what cannot be used.

        Raises:
            UserError: as `RequestReader.from_line`, naming the line by its number, from 1.
        """
        read = [self.requests.from_line(line, f"line {n}") for n, line in enumerate(lines, start=1)]
        Tally(read).log()
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
        Tally(read).log()
        return self.answer(read)

    def answer(self, requests: Sequence[Request]) -> list[str]:
        """Answer requests in their order. Texts of like length share a batch."""
        if not requests:
            return []
        ids, cut = self._tokenization.inputs([one.text for one in requests])
        self.cut += sum(cut)
        answers = [""] * len(requests)
        lengths = np.array([len(one) for one in ids])
        for members in EvaluationPlan(np.arange(len(ids)), lengths, self.batch_size):
            batch = self._collator.for_generation([ids[i] for i in members])
            asked = [requests[i] for i in members]
            features = [[_prefixed(one.checkpoint, name) for name in one.features] for one in asked]
            with self._fabric.autocast(), torch.inference_mode():
                texts = self._generate(self._fabric.to_device(batch), features)
            for i, text in zip(members, texts, strict=True):
                answers[i] = text
        return answers

    def log_cut(self, texts: int) -> None:
        """Log how many of `texts` inputs were cut."""
        if self.cut:
            log.warning("of %d texts, longer than the run's inputs, so cut: %d", texts, self.cut)


def load(
    run: str | Path | Run,
    checkpoint: str | None = None,
    *,
    batch_size: int | None = None,
    accelerator: str = "auto",
    precision: str | None = None,
) -> Predictor:
    """Load what a finished run needs to answer: its base model, and its adapters without their optimizer.

    Args:
        run: its folder.
        checkpoint: name of the checkpoint that answers; None is, for each task, the one that tested it.
        batch_size: texts generated for at once; None is as in the run's evaluation.
        accelerator: as Lightning names it.
        precision: as Lightning names it; None is the run's.

    Raises:
        UserError: there is no finished run or no such checkpoint; the base or a checkpoint cannot be read; or
            Lightning refuses the accelerator or the precision.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    checkpoints = {name: run.checkpoint(name) for name in run.selectable_checkpoints(checkpoint)}
    ranks = {
        _prefixed(name, feature): rank
        for name, one in checkpoints.items()
        for feature, rank in one.ranks.items()
    }
    pools = [one.pools for one in checkpoints.values()]
    try:
        fabric = Fabric(accelerator=accelerator, devices=1, precision=precision or run.cfg.trainer.precision)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"Lightning refuses the accelerator or precision: {error}") from error
    base = run.load_base(whole_vocabulary=True)
    adapter = inject(base.model, FeatureSpace(ranks), run.cfg.model.targets)
    adapter.load_state_dict({key: torch.cat([one[key] for one in pools]) for key in pools[0]}, ranks)
    base.model.to(fabric.device)
    features = {feature: rank for one in checkpoints.values() for feature, rank in one.ranks.items()}
    reader = RequestReader(run, features, checkpoint)
    batch_size = batch_size or run.cfg.evaluation.batch_size
    return Predictor(run, reader, checkpoints, base, adapter, fabric, batch_size)


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
