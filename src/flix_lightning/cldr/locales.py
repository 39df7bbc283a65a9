"""How each language writes names, dates, amounts and measures: CLDR's own entries, through Babel."""

import pickle
import re
from dataclasses import dataclass
from datetime import date
from functools import cache, cached_property

from babel import Locale, localedata
from babel.dates import format_date, format_skeleton
from babel.lists import format_list
from babel.numbers import format_currency
from babel.units import format_unit

from flix_lightning.cldr.values import Measure, Money, Value

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

_DIRECTION_MARKS = re.compile("[\u200e\u200f\u061c]")
_NUMBER = re.compile("\\d+([.,٫]\\d+)?")
_SPACES = re.compile("[\u00a0\u202f\u2009\\s]+")


def _clean(text: str) -> str:
    """Remove direction marks; replace each run of (typographic) spaces by one plain space."""
    return _SPACES.sub(" ", _DIRECTION_MARKS.sub("", text)).strip()


@cache
def _own_entries(language: str) -> dict:
    """Read a locale's own entries, without those it inherits."""
    # Read past Babel's cache: `localedata.load(merge_inherited=False)` would leave the bare entries in
    # it, and every later use of the locale would find nothing inherited.
    with open(localedata.resolve_locale_filename(LOCALES.get(language, language)), "rb") as file:
        return pickle.load(file)


@cache
def reason_missing(language: str) -> str | None:
    """Say why `language` cannot enter the benchmark; None if it can."""
    if not localedata.exists(LOCALES.get(language, language)):
        return "CLDR has no locale"
    territories = sum(len(code) == 2 for code in _own_entries(language).get("territories", ()))
    if territories < MIN_TERRITORIES:
        return f"{territories} territories of its own, fewer than {MIN_TERRITORIES}"
    return None


LANGUAGES = tuple(code for code in PAPER_LANGUAGES if reason_missing(code) is None)


@dataclass(frozen=True)
class Locality:
    """One language's names and formats. Every text it returns is non-empty, single-spaced and on one line.

    Attributes:
        language: code in LANGUAGES.
        territories: ISO 3166 code -> name.
        languages: ISO 639 code -> name.
        currencies: those of CURRENCIES that the locale itself names.
        units: those of UNITS that the locale itself writes -> the length ("long" or "short") it has.
        fields: "year", "month", "day" -> the word; empty where one of the three is missing.
    """

    language: str
    territories: dict[str, str]
    languages: dict[str, str]
    currencies: tuple[str, ...]
    units: dict[str, str]
    fields: dict[str, str]

    @cached_property
    def _locale(self) -> Locale:
        return Locale.parse(LOCALES.get(self.language, self.language))

    def date(self, value: date, form: str) -> str:
        """Write `value` in one of DATE_FORMATS, or as month and year where `form` is "month"."""
        if form == "month":
            return _clean(format_skeleton("yMMMM", value, locale=self._locale))
        return _clean(format_date(value, form, locale=self._locale))

    def month(self, value: date) -> str:
        """Return the month's name as it stands in `date(value, "month")`: many languages inflect it."""
        names = [self._locale.months[context]["wide"][value.month] for context in ("stand-alone", "format")]
        return next(name for name in map(_clean, names) if name in self.date(value, "month"))

    def write(self, value: Value, form: str = "long") -> str:
        """Write a value as `pauni za Uingereza 184.00` or `kilogramu 12.5`; a date in `form`."""
        match value:
            case Money():
                exact = {"format_type": "name", "currency_digits": False, "decimal_quantization": False}
                return _clean(format_currency(value.amount, value.currency, locale=self._locale, **exact))
            case Measure():
                length = self.units[value.unit]
                return _clean(format_unit(value.amount, value.unit, length=length, locale=self._locale))
            case _:
                return self.date(value, form)

    def counted(self, value: Money | Measure) -> str | None:
        """Return the text beside the number in `write(value)`; None where the locale has none of its own."""
        known = value.currency in self.currencies if isinstance(value, Money) else value.unit in self.units
        return _clean(_NUMBER.sub(" ", self.write(value))) if known else None

    def join(self, items: list[str]) -> str:
        """Join `items` as a list in a sentence, as in `A, B na C`."""
        return _clean(format_list(items, locale=self._locale))


def _names(entries: dict) -> dict[str, str]:
    """Keep the names of two-letter codes that are short and have none of the targets' punctuation."""
    return {
        code: name
        for code, text in sorted(entries.items())
        if len(code) == 2 and code not in ("XA", "XB", "ZZ") and isinstance(text, str)
        if 0 < len(name := _clean(text)) <= MAX_NAME and not set(name) & set(":[]$;?")
    }


@cache
def locality(language: str) -> Locality:
    """Return the `Locality` of a code in LANGUAGES; for another code, raises ValueError that says why."""
    if (reason := reason_missing(language)) is not None:
        raise ValueError(f"{language}: {reason}")
    own = _own_entries(language)
    patterns, display = own.get("unit_patterns", {}), own.get("unit_display_names", {})
    units = {
        unit: length
        for unit in UNITS
        for length in ("short", "long")  # the long one replaces the short one
        if "other" in patterns.get(unit, {}).get(length, {})
    }
    words = {field: display.get(f"duration-{field}", {}) for field in ("year", "month", "day")}
    fields = {
        field: _clean(text)
        for field, by_length in words.items()
        if (text := by_length.get("long") or by_length.get("short"))
    }
    return Locality(
        language=language,
        territories=_names(own.get("territories", {})),
        languages=_names(own.get("languages", {})),
        currencies=tuple(code for code in CURRENCIES if code in own.get("currency_names", {})),
        units=units,
        fields=fields if len(fields) == 3 else {},
    )
