"""What CLDR says by Babel alone, to hold the benchmark against; nothing of `flix_lightning.cldr` is used."""

import pickle
import re
import unicodedata
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path

import babel
from babel.dates import format_date
from babel.numbers import format_currency
from babel.units import format_unit

#: Examples a dataset of the benchmark that the tests read.
SIZES = {"train": 20, "validation": 5, "test": 5}

LOCALE_DATA = Path(babel.__file__).parent / "locale-data"
CURRENCIES = "USD EUR GBP JPY INR CNY NGN KES ZAR EGP CHF CAD".split()
KINDS = {"mass": "kilogram gram", "length": "kilometer meter centimeter", "volume": "liter"}
KINDS["duration"] = "hour minute second day week year"
UNITS = {unit: kind for kind, units in KINDS.items() for unit in units.split()}

# What the design says of CLDR.
ABSENT = {"bbj", "mos", "gbm", "hne", "mwr"}
THIN = {"ny", "tn", "bho", "rw", "mni", "sa"}


def babel_code(language: str) -> str:
    return {"pt_br": "pt", "de_localized": "de", "gom": "kok", "tw": "ak"}.get(language, language)


def plain(text: str) -> str:
    """`text` with single, plain spaces and without direction marks."""
    unseen = {c for c in text if unicodedata.category(c) == "Cf" and unicodedata.bidirectional(c) != "BN"}
    return " ".join("".join(c for c in text if c not in unseen).split())


@cache
def own(language: str) -> dict:
    """The entries of a locale's own file, nothing inherited."""
    return pickle.loads((LOCALE_DATA / f"{babel_code(language)}.dat").read_bytes())


@cache
def territories(language: str) -> dict[str, str]:
    """Name -> code of a locale's own countries."""
    entries = own(language)["territories"].items()
    return {plain(name): code for code, name in entries if len(code) == 2 and isinstance(name, str)}


def money(amount: Decimal, currency: str, language: str) -> str:
    named = {"format_type": "name", "currency_digits": False, "decimal_quantization": False}
    return plain(format_currency(amount, currency, locale=babel_code(language), **named))


def forms(value: tuple[str, ...], language: str) -> list[str]:
    """All that Babel may write for a value of a parse in a language."""
    code = babel_code(language)
    match value:
        case ("DATE", year, month, day):
            when = date(int(year), int(month), int(day))
            return [plain(format_date(when, form, code)) for form in ("full", "long", "medium")]
        case ("MONEY", amount, currency):
            assert currency in CURRENCIES
            return [money(Decimal(amount), currency, language)]
        case (_, amount, unit):
            lengths = ("long", "short")
            name = f"{UNITS[unit]}-{unit}"
            return [plain(format_unit(Decimal(amount), name, length, locale=code)) for length in lengths]


def values(parse: str) -> list[tuple[str, ...]]:
    """The intents of a parse: (intent, slot values in order)."""
    slots = {"DATE": ("YEAR", "MONTH", "DAY"), "MONEY": ("AMOUNT", "CURRENCY"), "MEASURE": ("AMOUNT", "UNIT")}
    if listed := re.fullmatch(r"\[IN:LIST (.*) \]", parse):
        parse = listed[1]
    found = []
    for intent, body in re.findall(r"\[IN:(DATE|MONEY|MEASURE) ((?:\[SL:\w+ \S+ \] )+)\]", parse):
        names, texts = zip(*re.findall(r"\[SL:(\w+) (\S+) \]", body), strict=True)
        assert names == slots[intent]
        found.append((intent, *texts))
    assert len(found) == (2 if listed else 1)
    return found


def whole_texts(task: str, line: dict) -> list[str]:
    """The whole input and target of a line; a question's target is a single name or number."""
    if task.startswith("qa_"):
        return [line["context"], f"{line['question']} {line['context']}"]
    return [line["text" if task == "ner" else "input"], line["target"]]
