"""The base model's pretraining text: names and values of all languages, skills on lists, English tasks.

It has none of the five tasks in another language than English, and no value of a validation or test set
(`values.PARTITIONS`): the base stands for one that has seen the languages, but not the tasks in them.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flix_lightning.cldr.examples import CANDIDATES, MAKERS, random_value
from flix_lightning.cldr.locales import CURRENCIES, DATE_FORMATS, LANGUAGES, UNITS, Locality, locality
from flix_lightning.cldr.values import draw, random_date, random_measure, random_money
from flix_lightning.tasks.definitions import TASKS
from flix_lightning.tasks.languages import language_name

PART = "pretrain"

#: Shares of the examples.
STREAMS = {"text": 0.1, "names": 0.35, "skill": 0.15, "task": 0.4}

#: Shares of the English tasks among themselves: question answering takes the longest to learn.
ENGLISH_TASKS = {"semantic_parsing": 0.15, "ner": 0.25, "qa_in_lang": 0.3, "qa_cross_lang": 0.3}


@dataclass(frozen=True)
class Pair:
    """An input and its target.

    Attributes:
        input: the text.
        target: None where the input is text to be denoised.
        stream: key of STREAMS.
        hidden: (first character, character after the last) of each part to be restored; empty where
            denoising chooses them.
    """

    input: str
    target: str | None
    stream: str
    hidden: tuple[tuple[int, int], ...] = ()


def _name(local: Locality, rng: random.Random) -> str:
    names = rng.choice([names for names in (local.territories, local.languages) if names])
    return names[rng.choice(list(names))]


def _value(local: Locality, rng: random.Random) -> str:
    return local.write(random_value(local, rng, PART), rng.choice(DATE_FORMATS))


def _items(local: Locality, rng: random.Random) -> list[str]:
    """Return two to five names and values."""
    return [_name(local, rng) if rng.random() < 0.6 else _value(local, rng) for _ in range(rng.randint(2, 5))]


def _text(rng: random.Random) -> Pair:
    local = locality(rng.choice(LANGUAGES))
    if rng.random() < 0.5:
        return Pair("; ".join(_items(local, rng)), None, "text")
    # One name at most: a sentence's list of names could be an example of translation or NER.
    values = [_value(local, rng) for _ in range(rng.randint(1, 2))]
    return Pair(local.join(rng.sample([_name(local, rng), *values], len(values) + 1)), None, "text")


def _concept(rng: random.Random) -> tuple[str, Callable[[Locality], str | None]]:
    """Return a concept's code, and a function that names it in a language (None where it has no name).

    Years and days are among the units, as they are counted. The word for a month, which questions ask
    with, is not: each language's tasks teach it.
    """
    match rng.choice(("territory", "territory", "language", "month", "currency", "unit")):
        case "territory":
            code = rng.choice(list(locality("en").territories))
            return code, lambda local: local.territories.get(code)
        case "language":
            code = rng.choice(list(locality("en").languages))
            return code, lambda local: local.languages.get(code)
        case "month":
            day = draw(random_date, rng, PART)
            return str(day.month), lambda local: local.month(day)
        case "currency":
            money = draw(lambda r: random_money(r, tuple(CURRENCIES)), rng, PART)
            return money.currency, lambda local: local.counted(money)
        case _:
            measure = draw(lambda r: random_measure(r, tuple(UNITS)), rng, PART)
            return measure.unit.partition("-")[2], lambda local: local.counted(measure)


def _names(rng: random.Random) -> Pair:
    """List a concept's code and names, as the margin of an encyclopedia does; hide some of them whole."""
    code, name = _concept(rng)
    others = [locality(one) for one in rng.sample(LANGUAGES, 8) if one != "en"]
    names = [(language_name(local.language), text) for local in others if (text := name(local))]
    listed = [("code", code), *names[: rng.randint(1, 4)]]
    if (text := name(locality("en"))) and rng.random() < 0.7:
        listed.append(("English", text))
    rng.shuffle(listed)
    hidden = set(rng.sample(range(len(listed)), rng.randint(1, max(1, len(listed) - 1))))
    line, places = "", []
    for number, (label, text) in enumerate(listed):
        # A hidden name cannot be restored without its language.
        line += "; " * bool(line) + (f"{label}: " if number in hidden or rng.random() < 0.5 else "")
        if number in hidden:
            places.append((len(line), len(line) + len(text)))
        line += text
    return Pair(line, None, "names", tuple(places))


def _skill(rng: random.Random) -> Pair:
    items = _items(locality(rng.choice(LANGUAGES)), rng)
    match rng.choice(("copy", "pick", "last", "drop", "reverse")):
        case "pick":
            n = rng.randrange(len(items))
            skill, result = f"pick {n + 1}", [items[n]]
        case "drop":
            n = rng.randrange(len(items))
            skill, result = f"drop {n + 1}", items[:n] + items[n + 1 :]
        case skill:
            result = {"copy": items, "last": items[-1:], "reverse": items[::-1]}[skill]
    return Pair(f"{skill}: {'; '.join(items)}", "; ".join(result), "skill")


def english(task: str, rng: random.Random) -> Pair:
    """Return an English example of `task`, prompted as in training; questions have one candidate or more."""
    easier = {"candidates": rng.randint(1, CANDIDATES)} if task.startswith("qa_") else {}
    example = MAKERS[task]("en", rng, PART, **easier)
    return Pair(TASKS[task].render(example, "en"), str(example["target"]), "task")


def pairs(rng: random.Random) -> Iterator[Pair]:
    """Give examples of STREAMS without end; they follow from the generator's seed."""
    makers = {
        "text": _text,
        "names": _names,
        "skill": _skill,
        "task": lambda r: english(*r.choices(list(ENGLISH_TASKS), list(ENGLISH_TASKS.values())), r),
    }
    while True:
        (stream,) = rng.choices(list(STREAMS), list(STREAMS.values()))
        yield makers[stream](rng)
