"""One random example of each of the five tasks in any language, under XTREME-UP's keys.

Every maker takes a language's code, a random generator and the partition of values that the example is of.
Names, formats and conjunctions are the locale's own: no text is an English template filled in.
"""

import random
from collections.abc import Callable
from datetime import date

from flix_lightning.cldr.locales import DATE_FORMATS, Locality, locality
from flix_lightning.cldr.values import (
    Measure,
    Money,
    Value,
    draw,
    partition,
    random_date,
    random_measure,
    random_money,
)

CANDIDATES = 4  # records in the context of a question


def random_value(local: Locality, rng: random.Random, part: str, other: Locality | None = None) -> Value:
    """Return a date, an amount of money or a measure that `local` (and `other`) can write."""
    units = tuple(unit for unit in local.units if other is None or unit in other.units)
    kinds: list[Callable[[random.Random], Value]] = [random_date]
    if local.currencies:
        kinds.append(lambda r: random_money(r, local.currencies))
    if units:
        kinds.append(lambda r: random_measure(r, units))
    return draw(rng.choice(kinds), rng, part)


def _parse(value: Value) -> str:
    match value:
        case Money():
            return f"[IN:MONEY [SL:AMOUNT {value.amount} ] [SL:CURRENCY {value.currency} ] ]"
        case Measure():
            return f"[IN:MEASURE [SL:AMOUNT {value.amount} ] [SL:UNIT {value.unit.partition('-')[2]} ] ]"
        case _:
            return f"[IN:DATE [SL:YEAR {value.year} ] [SL:MONTH {value.month} ] [SL:DAY {value.day} ] ]"


def semantic_parsing(language: str, rng: random.Random, part: str) -> dict[str, str]:
    """Make a text of one value, or (one text in six) of two, and their canonical form."""
    local = locality(language)
    values = [random_value(local, rng, part) for _ in range(2 if rng.random() < 1 / 6 else 1)]
    texts = [local.write(value, rng.choice(DATE_FORMATS)) for value in values]
    if len(values) == 1:
        return {"input": texts[0], "target": _parse(values[0])}
    return {"input": local.join(texts), "target": f"[IN:LIST {' '.join(map(_parse, values))} ]"}


def _lists_of_territories(
    english: Locality, local: Locality, rng: random.Random, part: str
) -> list[list[str]]:
    """Name two or three territories in both languages, where `ner` has each of the two lists in `part`.

    So no list that translation or NER tests stands in the other's training data or in the pretraining.
    """
    codes = sorted(set(english.territories) & set(local.territories))
    while True:
        chosen = rng.sample(codes, rng.choice((2, 2, 3)))
        lists = [[where.territories[code] for code in chosen] for where in (english, local)]
        if all(partition(tuple(("LOC", name) for name in names)) == part for names in lists):
            return lists


def translation(language: str, rng: random.Random, part: str) -> dict[str, str]:
    """Make an English list of territories, or a value -> the same as the locale writes it."""
    english, local = locality("en"), locality(language)
    if rng.random() < 0.5:
        source, target = _lists_of_territories(english, local, rng, part)
        return {"input": english.join(source), "target": local.join(target)}
    value, form = random_value(local, rng, part, english), rng.choice(("full", "long"))
    return {"input": english.write(value, form), "target": local.write(value, form)}


def ner(language: str, rng: random.Random, part: str) -> dict[str, object]:
    """Make a list of territories, dates, amounts and names of languages -> all but the last, labelled."""
    local = locality(language)

    def entity(r: random.Random) -> tuple[str, str]:
        kind = r.choice(("LOC", "LOC", "DATE", "MONEY"))
        if kind == "MONEY" and local.currencies:
            return kind, local.write(draw(lambda m: random_money(m, local.currencies), r, part))
        if kind == "DATE":
            return kind, local.date(draw(random_date, r, part), r.choice(("long", "medium")))
        return "LOC", local.territories[r.choice(sorted(local.territories))]

    entities = draw(lambda r: tuple(entity(r) for _ in range(r.choice((2, 2, 3)))), rng, part)
    items: list[tuple[str | None, str]] = list(entities)
    if local.languages:
        for _ in range(rng.choice((0, 1, 1))):
            name = local.languages[rng.choice(sorted(local.languages))]
            items.insert(rng.randint(0, len(items)), (None, name))
    text = local.join([name for _, name in items])
    spans, end = [], 0
    for label, name in items:
        start = text.index(name, end)
        end = start + len(name)
        if label:
            start_byte = len(text[:start].encode())
            limit_byte = start_byte + len(name.encode())
            spans.append({"start_byte": start_byte, "limit_byte": limit_byte, "label": label})
    target = " $$ ".join(f"{label}: {name}" for label, name in entities)
    return {"text": text, "spans": spans, "target": target}


def question(
    asked: Locality, told: Locality, rng: random.Random, part: str, candidates: int
) -> dict[str, str]:
    """Ask in the language `asked` about one of `candidates` records in the language `told`."""
    codes = sorted(set(asked.territories) & set(told.territories))

    def records(r: random.Random) -> tuple[tuple[str, date], ...]:
        chosen = r.sample(codes, candidates)
        years = r.sample(range(1900, 2050), candidates)
        months = r.sample(range(1, 13), candidates)
        return tuple(
            (code, date(year, month, 1)) for code, year, month in zip(chosen, years, months, strict=True)
        )

    facts = draw(records, rng, part)
    code, day = rng.choice(facts)
    context = "; ".join(f"{told.territories[one]}: {told.date(when, 'month')}" for one, when in facts)
    match rng.choice(("year", "month", "territory")):
        case "year":
            text, target = f"{asked.territories[code]}, {asked.fields['year']}?", str(day.year)
        case "month":
            text, target = f"{asked.territories[code]}, {asked.fields['month']}?", told.month(day)
        case _:
            text, target = f"{asked.date(day, 'month')}?", told.territories[code]
    return {"question": text, "title": "", "context": context, "target": target}


def qa_in_lang(language: str, rng: random.Random, part: str, candidates: int = CANDIDATES) -> dict[str, str]:
    """Make a question about records in the same language -> a span of them."""
    return question(locality(language), locality(language), rng, part, candidates)


def qa_cross_lang(
    language: str, rng: random.Random, part: str, candidates: int = CANDIDATES
) -> dict[str, str]:
    """Make a question in the language about English records -> an English span."""
    return question(locality(language), locality("en"), rng, part, candidates)


MAKERS = {
    "semantic_parsing": semantic_parsing,
    "translation": translation,
    "ner": ner,
    "qa_in_lang": qa_in_lang,
    "qa_cross_lang": qa_cross_lang,
}
