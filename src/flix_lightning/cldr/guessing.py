"""What a reader scores on the benchmark that knows the tasks' formats, but no language.

A method that scores no more has learned nothing of the language. Where a guess has something to choose
(a label, a template), it is the choice that scores best on the very examples that are scored, so that no
guess of its kind is better.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from statistics import fmean

from flix_lightning.cldr.locales import locality
from flix_lightning.data.layout import Example
from flix_lightning.tasks.metrics import score_texts

_NUMBER = re.compile(r"\d+(?:[.,]\d+)?")
_YEAR = re.compile(r"\d{4}")


def guess(task: str, language: str, examples: Sequence[Example]) -> float:
    """Return the expected score, 0 to 100, of a guess on a dataset; raises KeyError if no guess is known."""
    return GUESSES[task](language, examples)


def _answer(language: str, examples: Sequence[Example]) -> float:
    """Answer with the year, the month or the territory of one of the context's records, each as likely."""
    scores = []
    for example in examples:
        records = [record.split(": ", 1) for record in example.attributes["context"].split("; ")]
        if _YEAR.fullmatch(example.target):
            answers = [_YEAR.search(day)[0] for _, day in records]
        elif example.target in dict(records):
            answers = [territory for territory, _ in records]
        else:  # a month, as the target has it where the record is the right one
            answers = [example.target if example.target in day else _YEAR.sub("", day) for _, day in records]
        scores.append(fmean(score_texts("qa_f1", [answer], [example.target]) for answer in answers))
    return fmean(scores)


def _label(language: str, examples: Sequence[Example]) -> float:
    """Split a list at what the language puts between its parts, and give all parts the same label."""
    separators = locality(language).join(["\0", "\0", "\0"]).split("\0")[1:-1]
    separators += locality(language).join(["\0", "\0"]).split("\0")[1:-1]
    split = re.compile("|".join(map(re.escape, sorted(separators, key=len, reverse=True))))
    parts = [split.split(example.attributes["text"]) for example in examples]
    targets = [example.target for example in examples]
    labels = {piece.partition(":")[0] for target in targets for piece in target.split(" $$ ")}
    return max(
        score_texts("span_f1", [" $$ ".join(f"{label}: {part}" for part in one) for one in parts], targets)
        for label in labels
    )


def _copy_numbers(language: str, examples: Sequence[Example]) -> float:
    """Copy the text's numbers into the template that is right most often for so many numbers."""
    templates: dict[int, Counter[str]] = defaultdict(Counter)
    for example in examples:
        numbers = [_canonical(number) for number in _NUMBER.findall(example.attributes["input"])]
        templates[len(numbers)][_template(example.target, numbers)] += 1
    return 100 * sum(max(found.values()) for found in templates.values()) / len(examples)


def _canonical(number: str) -> Decimal:
    return Decimal(number.replace(",", "."))


def _template(target: str, numbers: Sequence[Decimal]) -> str:
    """Put the place of each of `numbers` where it stands in a target."""

    def place(found: re.Match[str]) -> str:
        value = _canonical(found[0])
        return f"{{{numbers.index(value)}}}" if value in numbers else found[0]

    return _NUMBER.sub(place, target)


GUESSES: dict[str, Callable[[str, Sequence[Example]], float]] = {
    "ner": _label,
    "semantic_parsing": _copy_numbers,
    "qa_in_lang": _answer,
    "qa_cross_lang": _answer,
}
"""Task of Table 1 -> (language, examples) -> the expected score."""
