"""One example of each of the five tasks in any language, under XTREME-UP's keys.

Names, forms and joining words are the locale's own; nothing is an English template filled in.
"""

import random
from collections.abc import Callable
from datetime import date

from flix_lightning.cldr.locales import DATE_FORMATS, Locality, locality
from flix_lightning.cldr.values import Measure, Money, any_date, any_measure, any_money, draw, partition

RECORDS = 4  # candidates in the context of a question


def atom(
    local: Locality, rng: random.Random, part: str, shared: Locality | None = None
) -> date | Money | Measure:
    """A date, an amount of money or a measure that `local` (and `shared`) can write."""
    units = tuple(unit for unit in local.units if shared is None or unit in shared.units)
    kinds: list[Callable[[random.Random], date | Money | Measure]] = [any_date]
    if local.currencies:
        kinds.append(lambda r: any_money(r, local.currencies))
    if units:
        kinds.append(lambda r: any_measure(r, units))
    return draw(rng.choice(kinds), rng, part)


def write(local: Locality, value: date | Money | Measure, form: str) -> str:
    """`value` as `local` writes it, a date in `form`."""
    match value:
        case Money():
            return local.money(value.amount, value.currency)
        case Measure():
            return local.measure(value.amount, value.unit)
        case _:
            return local.date(value, form)


def _parse(value: date | Money | Measure) -> str:
    match value:
        case Money():
            return f"[IN:MONEY [SL:AMOUNT {value.amount} ] [SL:CURRENCY {value.currency} ] ]"
        case Measure():
            return f"[IN:MEASURE [SL:AMOUNT {value.amount} ] [SL:UNIT {value.unit.partition('-')[2]} ] ]"
        case _:
            return f"[IN:DATE [SL:YEAR {value.year} ] [SL:MONTH {value.month} ] [SL:DAY {value.day} ] ]"


def semantic_parsing(language: str, rng: random.Random, part: str) -> dict[str, str]:
    """A date, amount or measure as the locale writes it -> its canonical value; one in six is a pair."""
    local = locality(language)
    values = [atom(local, rng, part) for _ in range(2 if rng.random() < 1 / 6 else 1)]
    texts = [write(local, value, rng.choice(DATE_FORMATS)) for value in values]
    if len(values) == 1:
        return {"input": texts[0], "target": _parse(values[0])}
    return {"input": local.join(texts), "target": f"[IN:LIST {' '.join(map(_parse, values))} ]"}


def _places(
    codes: list[str], english: Locality, local: Locality, rng: random.Random, part: str
) -> list[list[str]]:
    """Two or three territories in both languages, in the partition that `ner` puts either list into.

    So no list that one of the two tasks tests stands in what the other trains on, or the base model on
    either's English.
    """
    while True:
        chosen = rng.sample(codes, rng.choice((2, 2, 3)))
        names = [[where.territories[code] for code in chosen] for where in (english, local)]
        if all(partition(tuple(("LOC", name) for name in one)) == part for one in names):
            return names


def translation(language: str, rng: random.Random, part: str) -> dict[str, str]:
    """An English list of names, date, amount or measure -> the locale's own."""
    english, local = locality("en"), locality(language)
    if rng.random() < 0.5:
        common = sorted(set(english.territories) & set(local.territories))
        source, target = _places(common, english, local, rng, part)
        return {"input": english.join(source), "target": local.join(target)}
    value, form = atom(local, rng, part, english), rng.choice(("full", "long"))
    return {"input": write(english, value, form), "target": write(local, value, form)}


def ner(language: str, rng: random.Random, part: str) -> dict[str, object]:
    """A list of territories, dates, amounts and names of languages -> all but the last kind, labelled."""
    local = locality(language)

    def entity(r: random.Random) -> tuple[str, str]:
        kind = r.choice(("LOC", "LOC", "DATE", "MONEY"))
        if kind == "MONEY" and local.currencies:
            money = draw(lambda m: any_money(m, local.currencies), r, part)
            return kind, local.money(money.amount, money.currency)
        if kind == "DATE":
            return kind, local.date(draw(any_date, r, part), r.choice(("long", "medium")))
        return "LOC", local.territories[r.choice(sorted(local.territories))]

    entities = draw(lambda r: tuple(entity(r) for _ in range(r.choice((2, 2, 3)))), rng, part)
    items: list[tuple[str | None, str]] = list(entities)
    if local.languages:
        for _ in range(rng.choice((0, 1, 1))):
            name = local.languages[rng.choice(sorted(local.languages))]
            items.insert(rng.randint(0, len(items)), (None, name))
    text = local.join([name for _, name in items])
    spans, start = [], 0
    for label, name in items:
        at = text.index(name, start)
        start = at + len(name)
        if label:
            before = len(text[:at].encode())
            spans.append({"start_byte": before, "limit_byte": before + len(name.encode()), "label": label})
    target = " $$ ".join(f"{label}: {name}" for label, name in entities)
    return {"text": text, "spans": spans, "target": target}


def _question(
    asked: Locality, told: Locality, rng: random.Random, part: str, candidates: int
) -> dict[str, str]:
    """Who, when: a question that `asked` writes about records that `told` writes."""
    common = sorted(set(asked.territories) & set(told.territories))

    def records(r: random.Random) -> tuple[tuple[str, date], ...]:
        codes = r.sample(common, candidates)
        years = r.sample(range(1900, 2050), candidates)
        months = r.sample(range(1, 13), candidates)
        return tuple((code, date(y, m, 1)) for code, y, m in zip(codes, years, months, strict=True))

    facts = draw(records, rng, part)
    code, day = rng.choice(facts)
    context = "; ".join(f"{told.territories[c]}: {told.date(d, 'month')}" for c, d in facts)
    match rng.choice(("year", "month", "territory")):
        case "year":
            question, target = f"{asked.territories[code]}, {asked.fields['year']}?", str(day.year)
        case "month":
            question, target = f"{asked.territories[code]}, {asked.fields['month']}?", told.month(day)
        case _:
            question, target = f"{asked.date(day, 'month')}?", told.territories[code]
    return {"question": question, "title": "", "context": context, "target": target}


def qa_in_lang(language: str, rng: random.Random, part: str, candidates: int = RECORDS) -> dict[str, str]:
    """A question about records in the same language -> a span of them."""
    return _question(locality(language), locality(language), rng, part, candidates)


def qa_cross_lang(language: str, rng: random.Random, part: str, candidates: int = RECORDS) -> dict[str, str]:
    """A question in the language about English records -> an English span."""
    return _question(locality(language), locality("en"), rng, part, candidates)


MAKERS = {
    "semantic_parsing": semantic_parsing,
    "translation": translation,
    "ner": ner,
    "qa_in_lang": qa_in_lang,
    "qa_cross_lang": qa_cross_lang,
}
