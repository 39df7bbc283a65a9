"""What a base model can do before any adapter: `python -m flix_lightning.cldr.pretraining.score [folder]`.

Prints, as Markdown, its score on each task in English and the share of texts of each language that it
copies without a fault, all on values that were kept out of its pretraining.
"""

import argparse
import random

import torch
from rich.progress import track

from flix_lightning.cldr.examples import MAKERS, random_value
from flix_lightning.cldr.locales import LANGUAGES, locality
from flix_lightning.cldr.pretraining.batches import MAX_TARGET
from flix_lightning.cldr.pretraining.corpus import ENGLISH_TASKS
from flix_lightning.models import base as models
from flix_lightning.tasks.definitions import TASKS
from flix_lightning.tasks.metrics import score_texts

PART = "validation"
BATCH = 64  # examples generated for at once


@torch.inference_mode()
def answer(base: models.Base, inputs: list[str]) -> list[str]:
    """Return the greedy output for each input."""
    outputs = []
    for first in range(0, len(inputs), BATCH):
        encoded = base.tokenizer(inputs[first : first + BATCH], padding=True, return_tensors="pt")
        ids = base.model.generate(**encoded, max_new_tokens=MAX_TARGET, do_sample=False)
        outputs += base.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return outputs


def task_cases(task: str, count: int) -> tuple[list[str], list[str]]:
    """Make prompted English inputs of `task` and their targets."""
    rng = random.Random(f"score/{task}")
    examples = [MAKERS[task]("en", rng, PART) for _ in range(count)]
    return [TASKS[task].render(one, "en") for one in examples], [str(one["target"]) for one in examples]


def copy_cases(language: str, count: int) -> list[str]:
    """Make texts of one language: a name and a value each."""
    local, rng = locality(language), random.Random(f"score/copy/{language}")
    names = list(local.territories.values())
    return [f"{rng.choice(names)}; {local.write(random_value(local, rng, PART))}" for _ in range(count)]


def report(base: models.Base, count: int) -> str:
    """Return a Markdown table of the English tasks, and a list of the languages by their share of copies."""
    lines = [f"| English task ({count} examples) | metric | score |", "|---|---|---|"]
    for task in track(ENGLISH_TASKS, "English tasks"):
        inputs, targets = task_cases(task, count)
        metric = TASKS[task].metric
        lines.append(f"| {task} | {metric} | {score_texts(metric, answer(base, inputs), targets):.1f} |")
    copied = {}
    for language in track(LANGUAGES, "copying"):
        texts = copy_cases(language, count // 5)
        copied[language] = score_texts(
            "exact_match", answer(base, [f"copy: {text}" for text in texts]), texts
        )
    mean = sum(copied.values()) / len(copied)
    listed = ", ".join(f"{code} {copied[code]:.0f}" for code in sorted(copied, key=copied.get))
    lines += [
        "",
        f"Copied without a fault, % of {count // 5} texts of each language: mean {mean:.1f}; {listed}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", nargs="?", default="cldr-base", help="folder of a base model")
    parser.add_argument("--count", type=int, default=100, help="examples a task")
    options = parser.parse_args()
    print(report(models.load(options.base, "main", "float32"), options.count))


if __name__ == "__main__":
    main()
