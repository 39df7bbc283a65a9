import re
from datetime import date
from decimal import Decimal
from itertools import product

import pytest
from babel.dates import format_date
from babel.numbers import format_decimal
from cldr_reference import THIN, babel_code, forms, money, own, plain

from flix_lightning.cldr.locales import CURRENCIES, LANGUAGES, UNITS, locality
from flix_lightning.cldr.values import Measure, Money


def test_konkani_is_served_by_its_cldr_locale():
    assert locality("gom").territories["DE"] == own("kok")["territories"]["DE"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_are_the_locales_own(language):
    local, entries = locality(language), own(language)
    for kind, names in (("territories", local.territories), ("languages", local.languages)):
        assert names == {code: plain(entries[kind][code]) for code in names}
        for code, name in entries[kind].items():
            usable = isinstance(name, str) and len(code) == 2 and code not in ("XA", "XB", "ZZ")
            if usable and len(plain(name)) <= 24 and not re.search(r"[][:;$?]", name):
                assert code in names
    assert len(set(local.territories.values())) == len(local.territories) >= 100
    assert len(entries["months"]["format"]["wide"]) == 12
    assert set(local.currencies) <= set(entries["currency_names"])
    for unit, length in local.units.items():
        assert "other" in entries["unit_patterns"][unit][length]
    for field, word in local.fields.items():
        assert word in map(plain, entries["unit_display_names"][f"duration-{field}"].values())


@pytest.mark.parametrize("language", sorted(THIN))
def test_a_thin_locale_does_not_enter_by_what_it_inherits(language):
    # Babel itself would write a date in it without a word.
    assert format_date(date(2001, 2, 3), "long", locale=language)
    assert language not in LANGUAGES
    with pytest.raises(ValueError, match=rf"^{language}: \d+ territories of its own"):
        locality(language)


def test_reading_own_entries_leaves_babels_inheritance_alone():
    assert "standard" not in own("bm").get("list_patterns", {})
    assert locality("bm").join(["a", "b"]) == "a, b"


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_written_can_be_told_apart(language):
    local = locality(language)
    days = [date(1934, 6, 5), date(2034, 6, 5), date(1934, 5, 6), date(2034, 5, 6)]
    for form in ("full", "long", "medium"):
        assert len({local.date(day, form) for day in days}) == 4
    amounts = [Decimal(text) for text in ("3", "30", "3.5", "35")]
    texts = [local.write(Money(*pair)) for pair in product(amounts, local.currencies)]
    texts += [local.write(Measure(*pair)) for pair in product(amounts, local.units)]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_counted_is_what_stands_beside_its_number(language):
    local = locality(language)
    for amount in map(Decimal, ("2", "5", "21", "3.5")):
        number = plain(format_decimal(amount, locale=babel_code(language)))
        for code in local.currencies:
            text = money(amount, code, language)
            assert number in text
            assert local.counted(Money(amount, code)) == " ".join(text.replace(number, " ").split())
        for unit in local.units:
            texts = forms(("MEASURE", amount, unit.partition("-")[2]), language)
            assert local.counted(Measure(amount, unit)) in [
                " ".join(t.replace(number, " ").split()) for t in texts
            ]
    for absent in set(CURRENCIES) - set(local.currencies):
        assert local.counted(Money(Decimal(2), absent)) is None
    for absent in set(UNITS) - set(local.units):
        assert local.counted(Measure(Decimal(2), absent)) is None
