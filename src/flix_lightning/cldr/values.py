"""What the texts are about: dates, amounts, measures and lists of names, each in one partition only.

A value belongs to a partition by its hash, whatever the language or task it is written in. So what is
asked in a test set was seen in no training set of any language, nor by the base model.
"""

import calendar
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from hashlib import blake2b
from typing import TypeVar

#: Shares, in percent, of all values.
PARTITIONS = {"pretrain": 40, "train": 40, "validation": 10, "test": 10}

V = TypeVar("V")


def partition(value: object) -> str:
    """The partition that `value` (anything with a stable repr) belongs to, in every language."""
    point = int.from_bytes(blake2b(repr(value).encode(), digest_size=8).digest(), "big") % 100
    for name, share in PARTITIONS.items():
        if point < share:
            return name
        point -= share
    raise AssertionError("the shares sum to 100")


def draw(make: Callable[[random.Random], V], rng: random.Random, name: str) -> V:
    """The first of `make(rng)`'s values that belongs to partition `name`."""
    while partition(value := make(rng)) != name:
        pass
    return value


@dataclass(frozen=True)
class Money:
    """An amount of a currency (ISO 4217)."""

    amount: Decimal
    currency: str


@dataclass(frozen=True)
class Measure:
    """An amount of a unit (CLDR's name of it, as `mass-kilogram`)."""

    amount: Decimal
    unit: str


def any_date(rng: random.Random) -> date:
    """A day of the years 1900 to 2049."""
    year, month = rng.randint(1900, 2049), rng.randint(1, 12)
    return date(year, month, rng.randint(1, calendar.monthrange(year, month)[1]))


def _amount(rng: random.Random, decimals: int) -> Decimal:
    # Without trailing zeros: 34.0 and 34 are written alike, so they must be one value, in one partition.
    text = f"{rng.randint(2 * 10**decimals, 999 * 10**decimals) / 10**decimals:.{decimals}f}"
    return Decimal(text.rstrip("0").rstrip(".") if decimals else text)


def any_money(rng: random.Random, currencies: tuple[str, ...]) -> Money:
    """From 2 to 999, half of them with up to two decimals."""
    return Money(_amount(rng, decimals=rng.choice((0, 2))), rng.choice(currencies))


def any_measure(rng: random.Random, units: tuple[str, ...]) -> Measure:
    """From 2 to 999, half of them with one decimal."""
    return Measure(_amount(rng, decimals=rng.choice((0, 1))), rng.choice(units))
