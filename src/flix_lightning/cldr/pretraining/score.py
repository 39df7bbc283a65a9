"""What a base model can do before any adapter: `python -m flix_lightning.cldr.pretraining.score [folder]`.

Prints, as Markdown, its score on each task in English, the share of each language's names of territories
that it restores in English, and the share of each language's texts that it copies. No text is one of the
pretraining, nor of a test of the benchmark. Ends with exit code 1 when the base does not pass its gate.
"""

import argparse
import random
import sys
from collections import defaultdict
from statistics import mean

import torch
from rich.progress import track

from flix_lightning.cldr.benchmark import datasets
from flix_lightning.cldr.examples import MAKERS, random_value
from flix_lightning.cldr.locales import LANGUAGES, locality
from flix_lightning.cldr.pretraining.batches import MAX_TARGET
from flix_lightning.cldr.pretraining.corpus import ENGLISH_TASKS
from flix_lightning.common.cli import errors_as_lines
from flix_lightning.models import base as models
from flix_lightning.tasks.definitions import shipped_tasks
from flix_lightning.tasks.languages import find_name
from flix_lightning.tasks.metrics import score_texts

PART = "validation"
BATCH = 64  # examples generated for at once

#: The gate: the least score of an English task; of the names on average; of the names of any language.
LEAST_TASK, LEAST_MEAN, LEAST_LANGUAGE = 95, 80, 60

Scores = dict[str, dict[str, float]]


@torch.inference_mode()
def answer(base: models.Base, inputs: list[str]) -> list[str]:
    """Return the greedy output for each input."""
    outputs = {}
    ordered = sorted(set(inputs), key=len)
    for first in track(range(0, len(ordered), BATCH), "answering"):
        batch = ordered[first : first + BATCH]
        encoded = base.tokenizer(batch, padding=True, return_tensors="pt")
        ids = base.model.generate(**encoded, max_new_tokens=MAX_TARGET, do_sample=False)
        outputs |= dict(zip(batch, base.tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True))
    return [outputs[text] for text in inputs]


def task_cases(task: str, count: int) -> list[tuple[str, str]]:
    """Make (input, target) of `task`, prompted and in English."""
    rng = random.Random(f"score/{task}")
    examples = [MAKERS[task]("en", rng, PART) for _ in range(count)]
    return [(shipped_tasks()[task].render(one, "English"), str(one["target"])) for one in examples]


def name_cases(language: str, count: int) -> list[tuple[str, str]]:
    """Hide the English name beside that of `language`, for territories with two different names."""
    local, english = locality(language).territories, locality("en").territories
    codes = [code for code in local if code in english and local[code] != english[code]]
    codes = random.Random(f"score/names/{language}").sample(codes, min(count, len(codes)))
    return [(f"{find_name(language)}: {local[one]}; English:<extra_id_0>", english[one]) for one in codes]


def copy_cases(language: str, count: int) -> list[tuple[str, str]]:
    """Ask for a copy of texts of one language, a name and a value each."""
    local, rng = locality(language), random.Random(f"score/copy/{language}")
    names = list(local.territories.values())
    texts = [f"{rng.choice(names)}; {local.write(random_value(local, rng, PART))}" for _ in range(count)]
    return [(f"copy: {text}", text) for text in texts]


def score(base: models.Base, count: int) -> Scores:
    """Score `task`s in English, restored `name`s and `copy`s of each language (a fifth of `count`)."""
    asked = [code for task, code in datasets() if task == "qa_cross_lang"]
    cases = {("task", task): task_cases(task, count) for task in ENGLISH_TASKS}
    cases |= {("name", code): name_cases(code, count) for code in asked}
    cases |= {("copy", code): copy_cases(code, count // 5) for code in LANGUAGES}
    answers = iter(answer(base, [text for part in cases.values() for text, _ in part]))
    scores: Scores = defaultdict(dict)
    for (kind, name), part in cases.items():
        metric = shipped_tasks()[name].metric if kind == "task" else "exact_match"
        outputs = [next(answers).strip() for _ in part]
        scores[kind][name] = score_texts(metric, outputs, [target for _, target in part])
    return scores


def failures(scores: Scores) -> list[str]:
    """Say what the gate asks for and `scores` do not give."""
    found = [
        f"{task} in English: {value:.1f}, at least {LEAST_TASK} is needed"
        for task, value in scores["task"].items()
        if value < LEAST_TASK
    ]
    if (average := mean(scores["name"].values())) < LEAST_MEAN:
        found.append(f"names on average: {average:.1f} %, at least {LEAST_MEAN} are needed")
    return found + [
        f"names from {find_name(code)}: {value:.1f} %, at least {LEAST_LANGUAGE} are needed"
        for code, value in scores["name"].items()
        if value < LEAST_LANGUAGE
    ]


def report(scores: Scores) -> str:
    """Return `scores` as Markdown."""
    lines = ["| English task | metric | score |", "|---|---|---|"]
    lines += [
        f"| {task} | {shipped_tasks()[task].metric} | {value:.1f} |" for task, value in scores["task"].items()
    ]
    titles = {"name": "English names of territories restored", "copy": "Texts copied without a fault"}
    for kind, title in titles.items():
        part = scores[kind]
        listed = ", ".join(f"{code} {part[code]:.0f}" for code in sorted(part, key=part.get))
        lines += ["", f"{title}, %: mean {mean(part.values()):.1f}; {listed}."]
    return "\n".join(lines)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", nargs="?", default="cldr-base-3", help="folder of a base model")
    parser.add_argument("--count", type=int, default=100, help="examples a task, names a language")
    options = parser.parse_args()
    scores = score(models.load(options.base, "main", "float32"), options.count)
    print(report(scores))
    if missed := failures(scores):
        sys.exit("\n".join(["", "The gate is not passed:", *missed]))


if __name__ == "__main__":
    with errors_as_lines():
        main()
