"""How each language writes names, dates, amounts and measures: CLDR's own entries, through Babel."""

import pickle
import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache

from babel import Locale, localedata
from babel.dates import format_date, format_skeleton
from babel.lists import format_list
from babel.numbers import format_currency
from babel.units import format_unit

from flix_lightning.cldr.values import Measure, Money

#: Codes of the paper whose CLDR locale has another name.
LOCALES = {"pt_br": "pt", "de_localized": "de", "gom": "kok", "tw": "ak"}

#: Every language code of the paper's Appendix B.
PAPER_LANGUAGES = (
    "am ar as bbj be bho bm bn brx de de_localized ee en es fi fr gbm gom gu ha hi hne hu id ig ja kn ko lg "
    "luo mai ml mni mos mr mwr ny or pa pcm ps pt_br ru rw sa sn sw ta te th tn tr tw ur wo xh yo zu"
).split()

CURRENCIES = "USD EUR GBP JPY INR CNY NGN KES ZAR EGP CHF CAD".split()
UNITS = (
    "mass-kilogram mass-gram length-kilometer length-meter length-centimeter volume-liter "
    "duration-hour duration-minute duration-second duration-day duration-week duration-year"
).split()
DATE_FORMATS = ("full", "long", "medium")

MIN_TERRITORIES = 100
MAX_NAME = 24  # characters; longer names only cost time on a small machine

# Direction marks show nothing, and the many spaces of CLDR are a matter of type-setting.
_MARKS = re.compile("[\u200e\u200f\u061c]")
_NUMBER = re.compile("\\d+([.,٫]\\d+)?")
_SPACES = re.compile("[\u00a0\u202f\u2009\\s]+")


def _clean(text: str) -> str:
    return _SPACES.sub(" ", _MARKS.sub("", text)).strip()


def _uncounted(text: str) -> str:
    return _clean(_NUMBER.sub(" ", text))


@cache
def _own(locale: str) -> dict:
    # Read past Babel's cache: `localedata.load(merge_inherited=False)` would leave the bare entries in
    # it, and every later use of the locale would find nothing inherited.
    with open(localedata.resolve_locale_filename(locale), "rb") as file:
        return pickle.load(file)


@cache
def lack(language: str) -> str | None:
    """Why `language` cannot enter the benchmark, or None when it can."""
    locale = LOCALES.get(language, language)
    if not localedata.exists(locale):
        return "CLDR has no locale"
    own = _own(locale)
    territories = sum(len(code) == 2 for code in own.get("territories", ()))
    if territories < MIN_TERRITORIES:
        return f"{territories} territories of its own, fewer than {MIN_TERRITORIES}"
    months = own.get("months", {}).get("format", {}).get("wide", {})
    return None if len(months) == 12 else f"{len(months)} months of its own"


LANGUAGES = tuple(code for code in PAPER_LANGUAGES if lack(code) is None)


@dataclass(frozen=True)
class Locality:
    """One language's way of writing. Every text it returns is non-empty, single-spaced and on one line."""

    language: str
    territories: dict[str, str]
    languages: dict[str, str]
    currencies: tuple[str, ...]
    units: dict[str, str]  # unit -> the length ("long", "short") that the locale has of its own
    fields: dict[str, str]  # "year", "month", "day" -> the word

    @property
    def _locale(self) -> str:
        return LOCALES.get(self.language, self.language)

    def date(self, value: date, form: str) -> str:
        """`value` in one of DATE_FORMATS, or `month` for month and year alone."""
        if form == "month":
            return _clean(format_skeleton("yMMMM", value, locale=self._locale))
        return _clean(format_date(value, form, locale=self._locale))

    def month(self, value: date) -> str:
        """The month's name as it stands in `date(value, "month")`, which many languages decline."""
        months = Locale.parse(self._locale).months
        names = [_clean(months[context]["wide"][value.month]) for context in ("stand-alone", "format")]
        return next(name for name in names if name in self.date(value, "month"))

    def currency(self, value: Money) -> str | None:
        """What stands beside the amount in `money(value)`; None where the locale has no name of its own."""
        return (
            _uncounted(self.money(value.amount, value.currency))
            if value.currency in self.currencies
            else None
        )

    def unit(self, value: Measure) -> str | None:
        """What stands beside the amount in `measure(value)`; None where the locale has no unit of its own."""
        return _uncounted(self.measure(value.amount, value.unit)) if value.unit in self.units else None

    def money(self, amount: Decimal, currency: str) -> str:
        """An amount with the currency's name, as in `pauni za Uingereza 184.00`."""
        return _clean(
            format_currency(
                amount,
                currency,
                locale=self._locale,
                format_type="name",
                currency_digits=False,
                decimal_quantization=False,
            )
        )

    def measure(self, amount: Decimal, unit: str) -> str:
        """An amount with a unit, as in `kilogramu 12.5`."""
        return _clean(format_unit(amount, unit, length=self.units[unit], locale=self._locale))

    def join(self, items: list[str]) -> str:
        """`items` as a list in a sentence, as in `A, B na C`."""
        return _clean(format_list(items, locale=self._locale))


def _names(entries: dict, accept) -> dict[str, str]:
    names = {
        code: _clean(name) for code, name in sorted(entries.items()) if accept(code) and isinstance(name, str)
    }
    # A name with the punctuation of the targets in it could not be told apart from it.
    return {
        code: name
        for code, name in names.items()
        if 0 < len(name) <= MAX_NAME and not set(name) & set(":[]$;?")
    }


@cache
def locality(language: str) -> Locality:
    """The `Locality` of a code in LANGUAGES; ValueError, with the reason, for another."""
    if (reason := lack(language)) is not None:
        raise ValueError(f"{language}: {reason}")
    own = _own(LOCALES.get(language, language))
    patterns, words = own.get("unit_patterns", {}), own.get("unit_display_names", {})
    units = {}
    for unit in UNITS:
        for length in ("long", "short"):
            if "other" in patterns.get(unit, {}).get(length, {}) and unit not in units:
                units[unit] = length
    fields = {}
    for field in ("year", "month", "day"):
        word = words.get(f"duration-{field}", {})
        if text := word.get("long") or word.get("short"):
            fields[field] = _clean(text)
    return Locality(
        language=language,
        territories=_names(
            own.get("territories", {}), lambda code: len(code) == 2 and code not in ("XA", "XB", "ZZ")
        ),
        languages=_names(own.get("languages", {}), lambda code: len(code) == 2),
        currencies=tuple(code for code in CURRENCIES if code in own.get("currency_names", {})),
        units=units,
        fields=fields if len(fields) == 3 else {},
    )
