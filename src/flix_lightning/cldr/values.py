"""The contents of the benchmark's texts: dates, amounts, measures and lists of names.

A hash puts each value into one partition, whatever the language or task it is written in. So no training
set of any language has a value of a test set, and neither has the base model's pretraining.
"""

import calendar
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from hashlib import blake2b
from typing import TypeVar

#: Percentages of all values.
PARTITIONS = {"pretrain": 40, "train": 40, "validation": 10, "test": 10}

V = TypeVar("V")


def partition(value: object) -> str:
    """Return the partition that `value` (anything with a stable repr) belongs to."""
    point = int.from_bytes(blake2b(repr(value).encode(), digest_size=8).digest(), "big") % 100
    for name, share in PARTITIONS.items():
        if point < share:
            return name
        point -= share
    raise AssertionError("the shares sum to 100")


def draw(make: Callable[[random.Random], V], rng: random.Random, part: str) -> V:
    """Call `make(rng)` until its value belongs to the partition `part`."""
    while partition(value := make(rng)) != part:
        pass
    return value


@dataclass(frozen=True)
class Money:
    """An amount of a currency (ISO 4217 code)."""

    amount: Decimal
    currency: str


@dataclass(frozen=True)
class Measure:
    """An amount of a unit (CLDR's name, as `mass-kilogram`)."""

    amount: Decimal
    unit: str


Value = date | Money | Measure


def random_date(rng: random.Random) -> date:
    """Return a day of the years 1900 to 2049."""
    year, month = rng.randint(1900, 2049), rng.randint(1, 12)
    return date(year, month, rng.randint(1, calendar.monthrange(year, month)[1]))


def _random_amount(rng: random.Random, decimals: int) -> Decimal:
    # Without trailing zeros: 34.0 and 34 are written alike, so they must be one value, in one partition.
    text = f"{rng.randint(2 * 10**decimals, 999 * 10**decimals) / 10**decimals:.{decimals}f}"
    return Decimal(text.rstrip("0").rstrip(".") if decimals else text)


def random_money(rng: random.Random, currencies: tuple[str, ...]) -> Money:
    """Return an amount from 2 to 999, half of the time with up to two decimals."""
    return Money(_random_amount(rng, rng.choice((0, 2))), rng.choice(currencies))


def random_measure(rng: random.Random, units: tuple[str, ...]) -> Measure:
    """Return an amount from 2 to 999, half of the time with up to one decimal."""
    return Measure(_random_amount(rng, rng.choice((0, 1))), rng.choice(units))
