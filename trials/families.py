"""Try every family of text models of Transformers in a tiny form, and write docs/models.md: `make models`.

Each family gets random weights, an adapter and four examples with different features. A mixed batch must
train as each example alone, a batch must generate as each example alone, and what is exported must give the
run's logits. As reference serves the plain model with an example's update merged into its weights.
"""

import argparse
import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import torch
from omegaconf import OmegaConf
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from flix_lightning.adapter import Adapter, FeatureDropout, FeatureSpace, inject, targets
from flix_lightning.adapter.reference import merge
from flix_lightning.common.errors import UserError, one_line
from flix_lightning.common.files import write_atomic
from flix_lightning.data.batches import Collator
from flix_lightning.inference.export import write_lora, write_merged
from flix_lightning.models import base as models
from flix_lightning.models.base import Base
from flix_lightning.models.generation import Generator, Grouping
from flix_lightning.runs.checkpoints import Checkpoint
from flix_lightning.runs.run import Run
from flix_lightning.training.module import FlixModule
from trials.small import REPOSITORY
from trials.tiny_families import save_tiny

PAGE = REPOSITORY / "docs/models.md"
FAMILIES = sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES})
RANKS = {"task:ner": 3, "language:sw": 2, "language:yo": 2}
FEATURES = [("task:ner", "language:sw"), ("language:yo",), (), ("task:ner", "language:yo")]
INPUTS = [[70, 80, 90, 71, 81, 91, 72], [60, 61, 62], [100, 40, 101, 41, 102], [50, 120, 51]]
TARGETS = [[75, 85, 1], [65, 1], [105, 106, 107, 1], [55, 1]]
NEW_TOKENS = 5
TOLERANCE = 1e-3  # of logits, losses and gradients in float32, as a share of the largest
WAYS = {
    Grouping.ANY: "in batches",
    Grouping.SAME_LENGTH: "in batches of one length",
    Grouping.ONE: "one by one",
}


@dataclass(frozen=True)
class Verdict:
    """What was found of a family: a row of the page."""

    family: str
    training: str
    generation: str = "–"
    export: str = "–"
    note: str = ""

    @property
    def wrong(self) -> bool:
        """Whether it does something that is neither right nor refused."""
        return "WRONG" in astuple(self)


def examine(family: str) -> Verdict:
    """Try a family."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "base"
        try:
            save_tiny(family, folder)
        except Exception as error:
            return Verdict(family, "not tried", note=_line(error).partition(". ")[0])
        try:
            with _logged() as messages:
                base, plain = (models.load(str(folder), "main", "float32") for _ in range(2))
                adapter = inject(base.model, FeatureSpace(RANKS), "all-linear")
            generator = Generator(base, adapter, NEW_TOKENS)
        except UserError as error:
            return Verdict(family, "refused", note=_line(error).replace(temporary, "…"))
        _scramble(adapter)
        state = adapter.state_dict()
        alone = [merge(plain.model, state, RANKS, names) for names in FEATURES]
        training = _train(base, adapter, alone)
        generation = _generate(generator, alone)
        export = _export(plain, state, alone[0], Path(temporary), str(folder))
        note = ", ".join(message.partition(" of ")[0] for message in messages)
        return Verdict(family, training, generation, export, note)


@contextlib.contextmanager
def _logged() -> Iterator[list[str]]:
    """Give the list of messages that are logged of projections."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger(targets.__name__)
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


def _line(error: Exception) -> str:
    return one_line(error, 200).replace("|", "/")


def _scramble(adapter: Adapter) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for pool in adapter.parameters():
            pool[:-1] = torch.empty(pool[:-1].shape).normal_(std=0.2, generator=generator)


def _near(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


def _logits(model: PreTrainedModel, base: Base, prompt: Sequence[int], text: Sequence[int]) -> Tensor:
    """Return the logits of each of a text's n tokens and of the next, by a plain forward: [n + 1, V]."""
    if base.is_encoder_decoder:
        start = torch.tensor([[*base.decoder_start, *text]])
        return model(torch.tensor([prompt]), decoder_input_ids=start, use_cache=False).logits[
            0, -len(text) - 1 :
        ]
    return model(torch.tensor([[*prompt, *text]]), use_cache=False).logits[0, -len(text) - 1 :]


def _train(base: Base, adapter: Adapter, alone: Sequence[PreTrainedModel]) -> str:
    """Compare loss and gradients of a mixed batch with those of each example alone."""
    options = {"learning_rate": 1.0, "warmup_steps": 1, "lazy": False, "max_new_tokens": 1}
    module = FlixModule(base, adapter, FeatureDropout(0, 0.0), [], **options, on_scores=lambda *_: None)
    module.trainer = SimpleNamespace(accumulate_grad_batches=1, world_size=1)
    collator, total = Collator.of(base.tokenizer, base.is_encoder_decoder), sum(map(len, TARGETS))

    def gradients(rows: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        batch = collator.for_training([INPUTS[i] for i in rows], [TARGETS[i] for i in rows])
        facts = {"features": [FEATURES[i] for i in rows], "ids": [str(i) for i in rows], "step": 0}
        own = sum(len(TARGETS[i]) for i in rows)
        loss = module.training_step(batch | facts | {"target_tokens": total, "own_target_tokens": own})
        module.zero_grad()
        loss.backward()
        return loss.detach(), [pool.grad.clone() for pool in adapter.parameters()]

    loss, mixed = gradients(range(4))
    apart = [gradients([i])[1] for i in range(4)]
    with torch.no_grad():
        losses = [
            cross_entropy(_logits(model, base, *one)[:-1], torch.tensor(one[1]), reduction="sum")
            for model, one in zip(alone, zip(INPUTS, TARGETS, strict=True), strict=True)
        ]
    right = _near(loss, sum(losses) / total)
    right &= all(_near(one, sum(others)) for one, *others in zip(mixed, *apart, strict=True))
    return "yes" if right else "WRONG"


@torch.no_grad()
def _generate(generator: Generator, alone: Sequence[PreTrainedModel]) -> str:
    """Compare the texts of a mixed batch with greedy search by plain forwards on each example alone."""
    base = generator.base
    batch = Collator.of(base.tokenizer, base.is_encoder_decoder).for_generation(INPUTS)
    expected = []
    for model, prompt in zip(alone, INPUTS, strict=True):
        text: list[int] = []
        while len(text) < NEW_TOKENS and base.tokenizer.eos_token_id not in text:
            text.append(int(_logits(model, base, prompt, text)[-1].argmax()))
        expected.append(base.tokenizer.decode(text, skip_special_tokens=True))
    if generator(batch, FEATURES) != expected:
        return "WRONG"
    return WAYS[generator.way.grouping] + ("" if generator.way.use_cache else ", without a cache")


@torch.no_grad()
def _export(
    base: Base, state: Mapping[str, Tensor], merged: PreTrainedModel, folder: Path, pretrained: str
) -> str:
    """Compare what PEFT and Transformers read of an export with the run's model."""
    cfg = {"model": {"pretrained": pretrained}, "flix": {"name": "FLix"}, "seed": 0}
    run = Run(OmegaConf.create(cfg | {"mixture": {"name": "m"}, "data": {"name": "d"}}), folder)
    run.rows = []
    checkpoint = Checkpoint(folder / "last.ckpt", RANKS, state, 0)
    ids = (INPUTS[0], TARGETS[0])
    expected = _logits(merged, base, *ids)
    readers = {
        "merge=true": (write_merged, (), lambda out: models.load(str(out), "main", "float32").model),
        "PEFT": (
            write_lora,
            (None,),
            lambda out: PeftModel.from_pretrained(models.load(pretrained, "main", "float32").model, str(out)),
        ),
    }
    read = []
    for name, (write, options, load) in readers.items():
        with contextlib.suppress(UserError):
            write(run, checkpoint, base, FEATURES[0], folder / name, *options)
            read.append(name if _near(_logits(load(folder / name), base, *ids), expected) else "WRONG")
    return ", ".join(sorted(read)) or "refused"


def render(verdicts: Sequence[Verdict], versions: str) -> str:
    """Write the page.

    Args:
        verdicts: one for each family.
        versions: of the packages that they were tried with.
    """
    tried = [verdict for verdict in verdicts if verdict.training != "not tried"]
    rows = [f"| {' | '.join(astuple(verdict))} |" for verdict in tried]
    untried = [f"| {verdict.family} | {verdict.note} |" for verdict in verdicts if verdict not in tried]
    return PAGE_TEXT.format(
        versions=versions,
        right=sum(verdict.training != "refused" for verdict in tried),
        refused=sum(verdict.training == "refused" for verdict in tried),
        rows="\n".join(rows),
        untried="\n".join(untried),
    )


PAGE_TEXT = """# Models

Which base models can be trained, how they generate, and how they are exported. `make models` writes this
page: it tries every family of text models of Transformers in a tiny form with random weights.
With {versions}, {right} families work and {refused} are refused with one line.

- **family**: the `model_type` in the model's `config.json`.
- **training**: `yes` if a batch of examples with different features has the loss and the gradients of each
  example alone. `refused` if the run ends with the line in the note.
- **generation**: the fastest way whose texts are those of greedy search for each text alone; a run finds it.
  `in batches`: of any lengths. `in batches of one length`: the model reads padding. `one by one`: the model's
  cache mixes up examples. `without a cache`: the texts with a cache differ.
- **export**: what gives the logits of the run again: `PEFT`, the adapter as PEFT reads it, and `merge=true`,
  a plain model. `export.py` reads each adapter with PEFT and refuses what PEFT reads otherwise.
- **note**: the projections that `model.targets=all-linear` leaves out. Their inputs mix the examples of a
  batch, as those of experts do, or neither text nor gradients reach them.

| family | training | generation | export | note |
|---|---|---|---|---|
{rows}

These have no tiny form here, so they were not tried. A run checks its base model itself before it trains.

| family | why |
|---|---|
{untried}
"""


def parse(page: str) -> list[Verdict]:
    """Read the verdicts of a page, in order of families."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("| ") and not line.startswith("| family |")
    ]
    tried = [Verdict(*row) for row in cells if len(row) > 2]
    untried = [Verdict(row[0], "not tried", note=row[1]) for row in cells if len(row) == 2]
    return sorted([*tried, *untried], key=lambda verdict: verdict.family)


def versions() -> str:
    """Name the packages that decide a verdict, and their versions."""
    return f"Transformers {version('transformers')} and PEFT {version('peft')}"


def main() -> int:
    """Examine, print and write; give 1 if a family is wrong."""
    parser = argparse.ArgumentParser(prog="python -m trials.families", description=__doc__)
    parser.add_argument(
        "families", nargs="*", help="model types to try, without writing the page; none is all"
    )
    options = parser.parse_args()
    if unknown := sorted({*options.families} - {*FAMILIES}):
        parser.error(f"no family of Transformers is called {unknown[0]}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    verdicts = []
    for family in options.families or FAMILIES:
        try:
            verdicts.append(examine(family))
        except Exception as error:  # neither right nor refused
            verdicts.append(Verdict(family, "WRONG", note=f"{type(error).__name__}: {_line(error)}"))
        print(" | ".join(astuple(verdicts[-1])), flush=True)
    if not options.families:
        write_atomic(PAGE, render(verdicts, versions()))
    return 1 if any(verdict.wrong for verdict in verdicts) else 0


if __name__ == "__main__":
    os.environ["TQDM_DISABLE"] = "1"
    sys.exit(main())
