"""What a base model can do before any adapter.

The command is `python -m flix_lightning.cldr.pretraining.score outputs/base`.

Prints, as Markdown, its score on each task in English and the share of texts of each language that it
copies without a fault, all on values that were kept out of its pretraining.
"""

import argparse
import random
from pathlib import Path

import torch
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from flix_lightning.cldr.examples import MAKERS, atom, write
from flix_lightning.cldr.locales import LANGUAGES, locality
from flix_lightning.cldr.pretraining.corpus import ENGLISH_TASKS
from flix_lightning.cldr.pretraining.pretrain import MAX_TARGET
from flix_lightning.models import base as models
from flix_lightning.tasks.definitions import TASKS
from flix_lightning.tasks.metrics import score_texts

PART = "validation"
BATCH = 64  # examples generated for at once


@torch.inference_mode()
def answer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, inputs: list[str]) -> list[str]:
    """The greedy output for each input."""
    outputs = []
    for first in range(0, len(inputs), BATCH):
        encoded = tokenizer(inputs[first : first + BATCH], padding=True, return_tensors="pt")
        ids = model.generate(
            input_ids=encoded.input_ids,
            attention_mask=encoded.attention_mask,
            max_new_tokens=MAX_TARGET,
            do_sample=False,
        )
        outputs += tokenizer.batch_decode(ids, skip_special_tokens=True)
    return outputs


def task_cases(task: str, count: int) -> tuple[list[str], list[str]]:
    """Prompted English inputs of `task` and their targets."""
    rng = random.Random(f"score/{task}")
    examples = [MAKERS[task]("en", rng, PART) for _ in range(count)]
    return [TASKS[task].render(one, "en") for one in examples], [str(one["target"]) for one in examples]


def copy_cases(language: str, count: int) -> list[str]:
    """Texts of one language: two names or values each."""
    local, rng = locality(language), random.Random(f"score/copy/{language}")
    names = list(local.territories.values())
    return [f"{rng.choice(names)}; {write(local, atom(local, rng, PART), 'long')}" for _ in range(count)]


def report(base: models.Base, count: int) -> str:
    """Markdown: a table of the English tasks, and a line of the languages by how well they are copied."""
    lines = [f"| English task ({count} examples) | metric | score |", "|---|---|---|"]
    for task in track(ENGLISH_TASKS, "English tasks"):
        inputs, targets = task_cases(task, count)
        metric = TASKS[task].metric
        score = score_texts(metric, answer(base.model, base.tokenizer, inputs), targets)
        lines.append(f"| {task} | {metric} | {score:.1f} |")
    copied = {}
    for language in track(LANGUAGES, "copying"):
        texts = copy_cases(language, count // 5)
        copies = answer(base.model, base.tokenizer, [f"copy: {text}" for text in texts])
        copied[language] = score_texts("exact_match", copies, texts)
    mean = sum(copied.values()) / len(copied)
    listed = ", ".join(
        f"{code} {value:.0f}" for code, value in sorted(copied.items(), key=lambda item: item[1])
    )
    lines += [
        "",
        f"Copied without a fault, % of {count // 5} texts of each language: mean {mean:.1f}; {listed}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "base", nargs="?", default="cldr-base", help="cldr-base (the package's own) or a folder"
    )
    parser.add_argument("--count", type=int, default=100, help="examples a task")
    options = parser.parse_args()
    text = report(models.load(str(Path(options.base)), "main", "float32"), options.count)
    Console().print(Markdown(text)) if Console().is_terminal else print(text)


if __name__ == "__main__":
    main()
