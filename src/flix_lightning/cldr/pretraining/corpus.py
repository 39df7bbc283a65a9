"""The base model's pretraining text: names, values and records of all languages, skills, English tasks.

It has the prompts, questions and answers of the five tasks in English only, and no value of a validation or
test set (`values.PARTITIONS`): the base stands for one that has seen the languages, not the tasks in them.
What the tasks need stands in other forms: names, words and values in two languages, and records to look up.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import islice

from flix_lightning.cldr.examples import CANDIDATES, MAKERS, random_value
from flix_lightning.cldr.locales import CURRENCIES, DATE_FORMATS, LANGUAGES, UNITS, Locality, locality
from flix_lightning.cldr.values import Money, Value, draw, random_measure, random_money
from flix_lightning.tasks.definitions import shipped_tasks
from flix_lightning.tasks.languages import find_name

PART = "pretrain"

#: Shares of the examples from a step on: the tasks are learned early, the names need many examples, and
#: records are looked up across languages when the names are known.
STREAMS = {
    0: {"text": 0.05, "names": 0.55, "skill": 0.1, "task": 0.3},
    1760: {"names": 0.8, "skill": 0.05, "task": 0.15},
    4608: {"names": 0.45, "skill": 0.05, "task": 0.5},
    4912: {"records": 0.55, "names": 0.15, "skill": 0.05, "task": 0.25},
    6500: {"records": 0.2, "names": 0.3, "words": 0.05, "look up": 0.3, "skill": 0.05, "task": 0.1},
    8500: {"records": 0.15, "names": 0.2, "words": 0.03, "look up": 0.47, "skill": 0.05, "task": 0.1},
    10500: {"values": 0.3, "names": 0.22, "words": 0.03, "look up": 0.32, "skill": 0.03, "task": 0.1},
}

#: Shares of the kinds of names, and the share restored in English, which cross-lingual questions need.
KINDS = {"territories": 0.55, "languages": 0.15, "months": 0.1, "currencies": 0.1, "units": 0.1}
TO_ENGLISH = 0.6
LENGTHS = (1, 1, 1, 2, 3)  # of the lists of names, drawn alike

#: Shares of the second language of records: the first one again, English, any.
SAME, ENGLISH = 0.3, 0.4

CODE = "code"  # stands for a language whose names are ISO codes, the numbers of months, names of units

#: Shares of the English tasks among themselves: question answering takes the longest to learn.
ENGLISH_TASKS = {"semantic_parsing": 0.15, "ner": 0.35, "qa_in_lang": 0.25, "qa_cross_lang": 0.25}


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


def _concepts(kind: str, rng: random.Random) -> list[tuple[str, Value | None]]:
    """Return the concepts of a kind in random order: (code, value that is written with the name, if any).

    Years and days are among the units, as they are counted. The words that questions ask with (years, months)
    are a kind of their own, `fields`, which only late steps have.
    """

    def months(number: int) -> Callable[[random.Random], date]:
        return lambda r: date(r.randint(1900, 2049), number, r.randint(1, 28))

    match kind:
        case "months":
            found = [(str(number), draw(months(number), rng, PART)) for number in range(1, 13)]
        case "currencies":
            found = [(one, draw(partial(random_money, currencies=(one,)), rng, PART)) for one in CURRENCIES]
        case "units":
            found = [
                (one.partition("-")[2], draw(partial(random_measure, units=(one,)), rng, PART))
                for one in UNITS
            ]
        case _:
            found = [(code, None) for code in getattr(locality("en"), kind)]
    return rng.sample(found, len(found))


def _name_in(language: str, kind: str, code: str, value: Value | None) -> str | None:
    """Name a concept; None where the language has no name of its own for it."""
    if language == CODE:
        return code
    local = locality(language)
    if value is None:
        return getattr(local, kind).get(code)
    return local.month(value) if kind == "months" else local.counted(value)


def _names(rng: random.Random, kinds: dict[str, float] = KINDS) -> Pair:
    """List the same names in two languages, each list in an order of its own; hide one name of the second.

    So a name is restored from its name in the other language, and nothing else. CODE counts as a language.
    """
    (kind,) = rng.choices(list(kinds), list(kinds.values()))
    languages = [*LANGUAGES, CODE]
    second = "en" if rng.random() < TO_ENGLISH else rng.choice(languages)
    first = rng.choice([one for one in languages if one != second])
    named = ([_name_in(language, kind, *one) for language in (first, second)] for one in _concepts(kind, rng))
    names = list(islice((both for both in named if all(both)), rng.choice(LENGTHS)))
    if not names:
        return _names(rng, kinds)
    lists = [(first, [one for one, _ in names]), (second, [one for _, one in rng.sample(names, len(names))])]
    return _side_by_side(lists, rng.randrange(len(names)), rng, "names")


def _side_by_side(lists: list[tuple[str, list[str]]], hidden: int, rng: random.Random, stream: str) -> Pair:
    """Write the lists of two languages in random order, and hide one item of the second list."""
    text, places = "", ()
    second, _ = lists[1]
    for language, items in rng.sample(lists, 2):
        text += f"{'; ' * bool(text)}{CODE if language == CODE else find_name(language)}: "
        if language == second:
            start = len(text + "; ".join([*items[:hidden], ""]))
            places = ((start, start + len(items[hidden])),)
        text += "; ".join(items)
    return Pair(text, None, stream, places)


def _values(rng: random.Random) -> Pair:
    """Write a date, an amount of money or a measure in two languages; hide it in the second.

    Its partition is that of the pretraining, so that it is no value of a validation or test set.
    """
    second = "en" if rng.random() < TO_ENGLISH else rng.choice(LANGUAGES)
    first = rng.choice([one for one in LANGUAGES if one != second])
    local, other = locality(first), locality(second)
    value = random_value(local, rng, PART, other)
    if isinstance(value, Money) and value.currency not in other.currencies:
        return _values(rng)
    written = [(one.language, [one.write(value, rng.choice(DATE_FORMATS))]) for one in (local, other)]
    return _side_by_side(written, 0, rng, "values")


def _two_languages(rng: random.Random) -> tuple[str, str]:
    """Draw two languages, of which the second is often the first or English."""
    first = rng.choice(LANGUAGES)
    (second,) = rng.choices((first, "en", rng.choice(LANGUAGES)), (SAME, ENGLISH, 1 - SAME - ENGLISH))
    return first, second


def _facts(one: Locality, other: Locality, rng: random.Random) -> tuple[tuple[str, date], ...]:
    """Draw two territories or more that both languages name, each with a month."""
    codes = rng.sample(sorted(set(one.territories) & set(other.territories)), rng.randint(2, CANDIDATES))
    return draw(
        lambda r: tuple((code, date(r.randint(1900, 2049), r.randint(1, 12), 1)) for code in codes), rng, PART
    )


def _records(rng: random.Random) -> Pair:
    """Tell some records, then one or two of them again, often in another language, with a part hidden.

    What is hidden (a name, a month, a year, or both) stands in the first text, beside what is not. So the
    base reads what it is told in all languages, as it does in English. No question is asked.
    """
    told, again = map(locality, rng.sample(_two_languages(rng), 2))
    dates = _facts(told, again, rng)
    records = [f"{told.territories[code]}: {told.date(day, 'month')}" for code, day in dates]
    text = f"{find_name(told.language)}: {'; '.join(records)}; {find_name(again.language)}: "
    repeated = rng.sample(dates, rng.randint(1, 2))
    code, day = rng.choice(repeated)
    places = ()
    for number, (one, when) in enumerate(repeated):
        name, month = again.territories[one], again.date(when, "month")
        text += "; " * bool(number)
        if one == code:
            parts = [(0, len(name))]
            for part in (month, again.month(day), str(day.year)):
                if part in month:
                    at = len(name) + 2 + month.index(part)
                    parts.append((at, at + len(part)))
            start, stop = rng.choice(parts)
            places = ((len(text) + start, len(text) + stop),)
        text += f"{name}: {month}"
    return Pair(text, None, "records", places)


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


def _look_up(rng: random.Random) -> Pair:
    """Ask for a record, or a part of it, by what is beside it, often named in another language.

    So the base reads across languages, but under no prompt and no question of a task: an adapter has to learn
    that these ask for it.
    """
    first, second = _two_languages(rng)
    asked, told = map(locality, rng.choice([(first, second), (second, first)]))
    facts = _facts(asked, told, rng)
    code, day = rng.choice(facts)
    name = asked.territories[code]
    query, target = rng.choice(
        [
            (f"year of {name}", str(day.year)),
            (f"month of {name}", told.month(day)),
            (name, told.date(day, "month")),
            (asked.date(day, "month"), told.territories[code]),
        ]
    )
    records = "; ".join(f"{told.territories[one]}: {told.date(when, 'month')}" for one, when in facts)
    return Pair(f"look up {query}; {records}", target, "look up")


def english(task: str, rng: random.Random) -> Pair:
    """Return an English example of `task`, prompted as in training; questions have one candidate or more."""
    easier = {"candidates": rng.randint(1, CANDIDATES)} if task.startswith("qa_") else {}
    example = MAKERS[task]("en", rng, PART, **easier)
    return Pair(shipped_tasks()[task].render(example, "English"), str(example["target"]), "task")


def pairs(rng: random.Random, step: int = 0) -> Iterator[Pair]:
    """Give examples of STREAMS at `step` without end; they follow from the generator's seed."""
    shares = next(shares for start, shares in reversed(STREAMS.items()) if start <= step)
    makers = {
        "text": _text,
        "names": _names,
        "values": _values,
        "records": _records,
        "words": partial(_names, kinds={"fields": 1.0}),
        "look up": _look_up,
        "skill": _skill,
        "task": lambda r: english(*r.choices(list(ENGLISH_TASKS), list(ENGLISH_TASKS.values())), r),
    }
    while True:
        (stream,) = rng.choices(list(shares), list(shares.values()))
        yield makers[stream](rng)
