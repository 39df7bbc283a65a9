"""What the base model reads in pretraining: text of all the languages, skills, and English tasks.

None of it is one of the five tasks in another language than English, and no value of a validation or
test set is in it (`values.PARTITIONS`), so that the base stands for one that has seen the languages but
not the tasks in them.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flix_lightning.cldr.examples import MAKERS, RECORDS, atom, write
from flix_lightning.cldr.locales import CURRENCIES, DATE_FORMATS, LANGUAGES, UNITS, Locality, locality
from flix_lightning.cldr.values import any_date, any_measure, any_money, draw
from flix_lightning.tasks.definitions import TASKS
from flix_lightning.tasks.languages import language_name

PART = "pretrain"

#: Shares of the examples.
STREAMS = {"text": 0.1, "names": 0.35, "skill": 0.15, "task": 0.4}

#: Shares of the English tasks among themselves: looking up is slow to learn.
ENGLISH_TASKS = {"semantic_parsing": 0.15, "ner": 0.25, "qa_in_lang": 0.3, "qa_cross_lang": 0.3}


@dataclass(frozen=True)
class Pair:
    """An input with its target; no target where the input is text to be denoised.

    Attributes:
        hidden: what of a text is to be restored, each (first character, character behind the last); empty
            where denoising hides what it likes.
    """

    input: str
    target: str | None
    stream: str
    hidden: tuple[tuple[int, int], ...] = ()


def _name(local: Locality, rng: random.Random) -> str:
    names = rng.choice([names for names in (local.territories, local.languages) if names])
    return names[rng.choice(list(names))]


def _value(local: Locality, rng: random.Random) -> str:
    return write(local, atom(local, rng, PART), rng.choice(DATE_FORMATS))


def _item(local: Locality, rng: random.Random) -> str:
    return _name(local, rng) if rng.random() < 0.6 else _value(local, rng)


def _text(rng: random.Random) -> Pair:
    local = locality(rng.choice(LANGUAGES))
    if rng.random() < 0.5:
        return Pair("; ".join(_item(local, rng) for _ in range(rng.randint(2, 5))), None, "text")
    # Of names one at most: a list of names as a sentence has it could be what translation or NER tests.
    items = [_value(local, rng) for _ in range(rng.randint(1, 2))]
    return Pair(local.join(rng.sample([_name(local, rng), *items], len(items) + 1)), None, "text")


def _named(rng: random.Random) -> tuple[str, Callable[[Locality], str | None]]:
    """Some thing's code, and what gives its name in a language, or None where that has none of its own.

    Years and days are among the units, as they are counted; the word for a month, which questions ask with,
    is left to be learned from each language's tasks.
    """
    match rng.choice(("territory", "territory", "language", "month", "currency", "unit")):
        case "territory":
            code = rng.choice(list(locality("en").territories))
            return code, lambda local: local.territories.get(code)
        case "language":
            code = rng.choice(list(locality("en").languages))
            return code, lambda local: local.languages.get(code)
        case "month":
            day = draw(any_date, rng, PART)
            return str(day.month), lambda local: local.month(day)
        case "currency":
            money = draw(lambda r: any_money(r, tuple(CURRENCIES)), rng, PART)
            return money.currency, lambda local: local.currency(money)
        case _:
            measure = draw(lambda r: any_measure(r, tuple(UNITS)), rng, PART)
            return measure.unit.partition("-")[2], lambda local: local.unit(measure)


def _names(rng: random.Random) -> Pair:
    """One thing's code and names, as an encyclopedia's margin lists them, and some of these hidden whole."""
    code, name = _named(rng)
    others = [locality(one) for one in rng.sample(LANGUAGES, 8) if one != "en"]
    known = [(language_name(local.language), found) for local in others if (found := name(local))]
    listed = [("code", code), *known[: rng.randint(1, 4)]]
    if (found := name(locality("en"))) and rng.random() < 0.7:
        listed.append(("English", found))
    rng.shuffle(listed)
    hidden = set(rng.sample(range(len(listed)), rng.randint(1, max(1, len(listed) - 1))))
    text, places = "", []
    for number, (label, found) in enumerate(listed):
        # What is hidden cannot be guessed without its language.
        text += "; " * bool(text) + (f"{label}: " if number in hidden or rng.random() < 0.5 else "")
        if number in hidden:
            places.append((len(text), len(text) + len(found)))
        text += found
    return Pair(text, None, "names", tuple(places))


def _skill(rng: random.Random) -> Pair:
    local = locality(rng.choice(LANGUAGES))
    items = [_item(local, rng) for _ in range(rng.randint(2, 5))]
    listed = "; ".join(items)
    match rng.choice(("copy", "pick", "last", "drop", "reverse")):
        case "copy":
            return Pair(f"copy: {listed}", listed, "skill")
        case "pick":
            n = rng.randrange(len(items))
            return Pair(f"pick {n + 1}: {listed}", items[n], "skill")
        case "last":
            return Pair(f"last: {listed}", items[-1], "skill")
        case "drop":
            n = rng.randrange(len(items))
            return Pair(f"drop {n + 1}: {listed}", "; ".join(items[:n] + items[n + 1 :]), "skill")
        case _:
            return Pair(f"reverse: {listed}", "; ".join(reversed(items)), "skill")


def english(task: str, rng: random.Random) -> Pair:
    """An example of `task` in English, prompted as in training; questions with one candidate or more."""
    easier = {"candidates": rng.randint(1, RECORDS)} if task.startswith("qa_") else {}
    example = MAKERS[task]("en", rng, PART, **easier)
    return Pair(TASKS[task].render(example, "en"), str(example["target"]), f"task:{task}")


def pairs(rng: random.Random) -> Iterator[Pair]:
    """Endless examples of STREAMS, the same for a generator of the same seed."""
    makers = {
        "text": _text,
        "names": _names,
        "skill": _skill,
        "task": lambda r: english(*r.choices(list(ENGLISH_TASKS), list(ENGLISH_TASKS.values())), r),
    }
    while True:
        (name,) = rng.choices(list(STREAMS), list(STREAMS.values()))
        yield makers[name](rng)
