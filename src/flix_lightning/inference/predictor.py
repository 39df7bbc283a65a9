"""Answers of a finished run to texts with whatever features they carry, mixed freely in a batch.

A run tests each task with the checkpoint that was selected for it. Here all of these stand side by side in
one adapter, so that texts of several tasks share a batch and each is still answered by its task's own.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric

from flix_lightning.adapter.features import FeatureSpace
from flix_lightning.adapter.projection import Adapter, inject
from flix_lightning.common.errors import UserError
from flix_lightning.data.batches import Collator, EvaluationPlan
from flix_lightning.data.jsonl import get_string
from flix_lightning.data.layout import Example
from flix_lightning.data.mixture import Dataset
from flix_lightning.data.mixture_config import SHARED
from flix_lightning.data.tokenization import Tokenization
from flix_lightning.models.base import Base
from flix_lightning.models.generation import Generator
from flix_lightning.runs.run import Run
from flix_lightning.tasks.definitions import TASKS
from flix_lightning.tasks.languages import is_known

log = logging.getLogger(__name__)

#: Batches of a window: all that is lost where the process is killed.
WINDOW = 8

#: Characters that end a window early: a few very long texts must not fill the memory.
WINDOW_CHARACTERS = 2**22

_SHOWN = 20  # names that are listed
_EVERYWHERE = f"shared:{SHARED}"  # a feature of every text, for runs that have it


@dataclass(frozen=True)
class Request:
    """One text to answer.

    Attributes:
        text: what the model reads.
        features: "kind:name" of the trained features that are on.
        dropped: of those that were never trained, which contribute nothing.
        unused: keys of its line that are neither text nor feature.
        checkpoint: the name of the one that answers.
        bare: whether it lacks a prompt for want of a task and a language that are known.
    """

    text: str
    features: tuple[str, ...]
    dropped: tuple[str, ...]
    unused: tuple[str, ...]
    checkpoint: str
    bare: bool


class Tally:
    """How many texts could not be read as they are, and what they carried that could not be used."""

    def __init__(self, requests: Iterable[Request]):
        self.texts = self.bare = 0
        self.dropped: Counter[str] = Counter()
        self.unused: Counter[str] = Counter()
        for request in requests:
            self.texts += 1
            self.bare += request.bare
            self.dropped.update(request.dropped)
            self.unused.update(request.unused)

    def log(self) -> None:
        """Log each feature and each key once."""
        for what, found in (
            ("never trained, so dropped", self.dropped),
            ("neither text nor feature of this run, so not used", self.unused),
        ):
            if found:
                shown = ", ".join(f"{name} ({count})" for name, count in found.most_common(_SHOWN))
                more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
                log.warning("of %d texts, %s: %s%s", self.texts, what, shown, more)
        if self.bare:
            log.warning("of %d texts, without a task and language to prompt by: %d", self.texts, self.bare)


class Predictor:
    """A finished run that answers texts; `load` makes it.

    Attributes:
        batch_size: texts that are generated for at once.
        steps: name of each checkpoint -> its optimizer step.
        cut: how many texts so far were longer than the run's inputs, and cut.
    """

    def __init__(
        self,
        run: Run,
        checkpoint: str | None,
        base: Base,
        adapter: Adapter,
        fabric: Fabric,
        batch_size: int,
        steps: Mapping[str, int],
    ):
        self._run, self._asked, self.steps = run, checkpoint, steps
        lengths = run.cfg.data.max_input_length, run.cfg.data.max_target_length
        self._tokenization = Tokenization(base.tokenizer, base.is_encoder_decoder, *lengths)
        self._collator = Collator.of(base.tokenizer, base.is_encoder_decoder)
        self._generate = Generator(base, adapter, run.cfg.data.max_target_length)
        self._fabric, self.batch_size = fabric, batch_size
        ranks = adapter.space.ranks
        self._trained = {feature.partition("/")[2] for feature, rank in ranks.items() if rank}
        self._kinds = dict.fromkeys(feature.partition("/")[2].partition(":")[0] for feature in ranks)
        self._selected: dict[str | None, str] = {}
        self.cut = 0

    def predict(self, lines: Sequence[Mapping[str, Any]]) -> list[str]:
        """Answer lines as `request` reads them, in their order, and say what of them could not be used.

        Raises:
            UserError: as `request`; the line is named by its number, from 1.
        """
        return self._said([self.request(line, f"line {n}") for n, line in enumerate(lines, start=1)])

    def generate(self, texts: Sequence[str], features: Sequence[Collection[str]]) -> list[str]:
        """Answer texts as they stand, without a prompt.

        Args:
            texts: what the model reads.
            features: "kind:name" of each text, any of which may be unknown: it is dropped, which is said.

        Raises:
            UserError: another number of features than of texts.
        """
        if len(texts) != len(features) or any(isinstance(names, str) for names in features):
            raise UserError(
                f"features={features}: for each of the {len(texts)} texts, a list of kind:name is needed"
            )
        return self._said([self._request(*one) for one in zip(texts, features, strict=True)])

    def request(self, line: Mapping[str, Any], where: str) -> Request:
        """Read a line: a text, and features under their kinds' names (`"language": "sw"`).

        The text is what the keys of the line's task hold, as in data, or `text` in their place, and gets the
        prompt of its task and language as in training; where one of the two is unknown or not said, it
        stands as it is. So does `prompt`, which goes before them.

        Args:
            line: a JSON object.
            where: what to call it in an error.

        Raises:
            UserError: no text; a text or a feature that is not a string, an empty feature.
        """
        names = {
            kind: _name(line, kind, where) for kind in (*self._kinds, "task", "language") if kind in line
        }
        task, language = names.get("task"), names.get("language")
        text, keys, bare = _text(line, task, language, where)
        features = [f"{kind}:{names[kind]}" for kind in self._kinds if kind in names]
        unused = tuple(key for key in line if key not in names and key not in keys)
        return self._request(text, features, task, unused, bare)

    def request_example(self, dataset: Dataset, example: Example) -> Request:
        """Make the request of an example of a dataset; raises UserError as `Dataset.describe` does."""
        described = dataset.describe(example, self._kinds)
        features = [f"{kind}:{name}" for kind, name in described.items()]
        return self._request(example.input, features, dataset.task)

    def answer(self, requests: Sequence[Request]) -> list[str]:
        """Answer requests in their order, those of like length together."""
        if not requests:
            return []
        ids, cut = self._tokenization.inputs([one.text for one in requests])
        self.cut += sum(cut)
        answers = [""] * len(requests)
        lengths = np.array([len(one) for one in ids])
        for members in EvaluationPlan(np.arange(len(ids)), lengths, self.batch_size):
            batch = self._collator.for_generation([ids[i] for i in members])
            asked = [requests[i] for i in members]
            features = [[_stacked(one.checkpoint, name) for name in one.features] for one in asked]
            with self._fabric.autocast(), torch.inference_mode():
                texts = self._generate(self._fabric.to_device(batch), features)
            for i, text in zip(members, texts, strict=True):
                answers[i] = text
        return answers

    def log_cut(self, texts: int) -> None:
        """Log how many of `texts` inputs were cut."""
        if self.cut:
            log.warning("of %d texts, longer than the run's inputs, so cut: %d", texts, self.cut)

    def _request(
        self,
        text: str,
        features: Collection[str],
        task: str | None = None,
        unused: tuple[str, ...] = (),
        bare: bool = False,
    ) -> Request:
        named = dict.fromkeys([*features, _EVERYWHERE] if _EVERYWHERE in self._trained else features)
        on = tuple(name for name in named if name in self._trained)
        dropped = tuple(name for name in named if name not in self._trained)
        if task is None:
            task = next((name.removeprefix("task:") for name in named if name.startswith("task:")), None)
        if task not in self._selected:
            self._selected[task] = self._run.select_checkpoint(self._asked, [task] if task else [])
        return Request(text, on, dropped, unused, self._selected[task], bare)

    def _said(self, requests: Sequence[Request]) -> list[str]:
        Tally(requests).log()
        return self.answer(requests)


def load(
    run: str | Path | Run,
    checkpoint: str | None = None,
    *,
    batch_size: int | None = None,
    accelerator: str = "auto",
    precision: str | None = None,
) -> Predictor:
    """Load what predictions of a finished run need: its base model, and adapters without their optimizer.

    Args:
        run: its folder.
        checkpoint: name of the one that answers; None is, for each task, what it was tested with.
        batch_size: texts generated for at once; None is as in the run's evaluation.
        accelerator, precision: as Lightning names them; a precision of None is the run's.

    Raises:
        UserError: no finished run; no such checkpoint; a base or checkpoint that cannot be read; an
            accelerator or precision that Lightning refuses.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    read = {name: run.checkpoint(name) for name in run.selectable_checkpoints(checkpoint)}
    ranks = {
        _stacked(name, feature): rank for name, one in read.items() for feature, rank in one.ranks.items()
    }
    pools = [one.pools for one in read.values()]
    state = {key: torch.cat([one[key] for one in pools]) for key in pools[0]}
    try:
        fabric = Fabric(accelerator=accelerator, devices=1, precision=precision or run.cfg.trainer.precision)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"Lightning refuses the accelerator or precision: {error}") from error
    base = run.load_base(whole_vocabulary=True)
    adapter = inject(base.model, FeatureSpace(ranks), run.cfg.model.targets)
    adapter.load_state_dict(state, ranks)
    base.model.to(fabric.device)
    batch_size = batch_size or run.cfg.evaluation.batch_size
    steps = {name: one.step for name, one in read.items()}
    return Predictor(run, checkpoint, base, adapter, fabric, batch_size, steps)


def windows(requests: Iterable[Request], batch_size: int) -> Iterator[list[Request]]:
    """Cut requests into windows of WINDOW batches, which are sorted by length together."""
    window, characters = [], 0
    for request in requests:
        window.append(request)
        characters += len(request.text)
        if len(window) == WINDOW * batch_size or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def _stacked(checkpoint: str, feature: str) -> str:
    """What a checkpoint's feature is called where several stand side by side."""
    return f"{checkpoint}/{feature}"


def _name(line: Mapping[str, Any], kind: str, where: str) -> str:
    if not (name := get_string(line, kind, where)):
        raise UserError(f"{where}: the value of {kind!r} is empty; a feature has a name, or leave it out")
    return name


def _text(
    line: Mapping[str, Any], task: str | None, language: str | None, where: str
) -> tuple[str, Collection[str], bool]:
    """What is read of a line, the keys that hold it, and whether it stands bare for want of a prompt."""
    if "prompt" in line:
        return get_string(line, "prompt", where), ("prompt",), False
    known = TASKS.get(task)
    if known and all(key in line for key in known.input_keys):
        keys = known.input_keys
        text = known.input.format_map({key: get_string(line, key, where) for key in keys})
    elif "text" in line:
        keys, text = ("text",), get_string(line, "text", where)
    else:
        own = f", or the keys of {task}: {', '.join(known.input_keys)}" if known else ""
        raise UserError(f"{where}: no text to answer; it needs text or prompt{own}")
    bare = known is None or not is_known(language)
    return text if bare else known.prompted(text, language), keys, bare
