"""Each task's examples against Babel itself."""

import re
from collections import Counter
from datetime import date, datetime
from itertools import product

import babel
import pytest
from babel.dates import format_date, format_skeleton
from babel.lists import format_list
from babel.numbers import parse_decimal
from cldr_reference import CURRENCIES, SIZES, UNITS, babel_code, forms, money, own, plain, territories, values

from flix_lightning.cldr.benchmark import datasets
from flix_lightning.tasks.metrics import get_metric


def languages_of(task: str) -> list[str]:
    return [code for one, code in datasets() if one == task]


@pytest.mark.parametrize("language", languages_of("semantic_parsing"))
def test_a_parse_is_what_its_input_says(lines, language):
    intents = Counter()
    for split in SIZES:
        for line in lines["semantic_parsing", language, split]:
            said = values(line["target"])
            choices = product(*(forms(value, language) for value in said))
            written = {plain(format_list(list(one), locale=babel_code(language))) for one in choices}
            assert line["input"] in written
            # 34.0 is 34: one value, one target, one partition.
            assert not re.search(r"\.\d*0 ", line["target"])
            intents.update([intent for intent, *_ in said] + ["LIST"] * (len(said) == 2))
    assert set(intents) == {"DATE", "MONEY", "MEASURE", "LIST"}


def read_english(text: str) -> tuple[str, object]:
    """What an English input is about: ("places", codes), ("date", (day, form)) or ("amount", value)."""
    for form, pattern in (("full", "%A, %B %d, %Y"), ("long", "%B %d, %Y")):
        try:
            return "date", (datetime.strptime(text, pattern).date(), form)
        except ValueError:
            pass
    if amount := re.match(r"(\d+(?:\.\d+)?) ", text):
        kinds = [("MONEY", code) for code in CURRENCIES] + [("MEASURE", unit) for unit in UNITS]
        amounts = [(kind, amount[1], name) for kind, name in kinds]
        (value,) = (one for one in amounts if text in forms(one, "en"))
        return "amount", value
    names = re.split(r", and |, | and ", text)
    return "places", [territories("en")[name] for name in names]


@pytest.mark.parametrize("language", languages_of("translation"))
def test_a_translation_is_the_locales_own(lines, language):
    code, kinds = babel_code(language), set()
    for split in SIZES:
        for line in lines["translation", language, split]:
            kind, value = read_english(line["input"])
            kinds.add(kind)
            if kind == "date":
                day, form = value
                assert line["target"] == plain(format_date(day, form, locale=code))
            elif kind == "amount":
                assert line["target"] in forms(value, language)
            else:
                names = [own(language)["territories"][one] for one in value]
                assert line["target"] == plain(format_list(names, locale=code))
    assert len(kinds) >= 2


def days_written(text: str, language: str) -> list[date]:
    """The days that Babel writes as `text` in one of the forms that NER has."""
    (year,) = re.findall(r"\d{4}", text)
    days = (date.fromordinal(date(int(year), 1, 1).toordinal() + n) for n in range(366))
    written = ((day, form) for day in days for form in ("long", "medium"))
    return [day for day, form in written if plain(format_date(day, form, babel_code(language))) == text]


@pytest.mark.parametrize("language", languages_of("ner"))
def test_entities_stand_where_the_spans_say(lines, language):
    code, labels = babel_code(language), set()
    for split in SIZES:
        for line in lines["ner", language, split]:
            raw, end, pieces = line["text"].encode(), 0, []
            for span in line["spans"]:
                assert end <= span["start_byte"] < span["limit_byte"] <= len(raw)
                end = span["limit_byte"]
                entity = raw[span["start_byte"] : end].decode()
                pieces.append(f"{span['label']}: {entity}")
                labels.add(span["label"])
                match span["label"]:
                    case "LOC":
                        assert entity in territories(language)
                    case "DATE" if split == "test":  # the reference is slow
                        assert len(days_written(entity, language)) >= 1
                    case "MONEY":
                        (number,) = re.findall(r"\d[\d.,]*", entity)
                        amount = parse_decimal(number, locale=code)
                        assert entity in [money(amount, currency, language) for currency in CURRENCIES]
            assert len(pieces) in (2, 3)
            assert line["target"] == " $$ ".join(pieces)
    assert labels == {"LOC", "DATE", "MONEY"}


def test_gold_entities_score_100(lines):
    rows = [row for (task, _, _), rows in lines.items() if task == "ner" for row in rows]
    targets = [row["target"] for row in rows]
    sums = get_metric("span_f1").counts(targets, targets).sum(axis=0)
    assert get_metric("span_f1").score(sums) == 100
    assert sums[2] == sum(len(row["spans"]) for row in rows)  # no entity is dropped for its punctuation


def words_of(language: str, day: date) -> str:
    return plain(format_skeleton("yMMMM", day, locale=babel_code(language)))


@pytest.mark.parametrize(("task", "language"), [one for one in datasets() if one[0].startswith("qa_")])
def test_a_question_has_one_answer_in_its_context(lines, task, language):
    told, asked = ("en" if task == "qa_cross_lang" else language), language
    fields = own(asked)["unit_display_names"]
    year, month = ({plain(text) for text in fields[f"duration-{one}"].values()} for one in ("year", "month"))
    kinds = Counter()
    for split in SIZES:
        for line in lines[task, language, split]:
            records = [record.split(": ") for record in line["context"].split("; ")]
            assert len(records) == len({name for name, _ in records}) == 4
            facts = {}
            for name, when in records:
                (number,) = re.findall(r"\d{4}", when)
                (day,) = (
                    day
                    for day in (date(int(number), one, 1) for one in range(1, 13))
                    if words_of(told, day) == when
                )
                facts[territories(told)[name]] = (name, when, day)
            assert line["target"] in line["context"]
            assert line["question"].endswith("?")
            question = line["question"][:-1]
            when_asked = [code for code, (_, _, day) in facts.items() if words_of(asked, day) == question]
            if when_asked:
                (code,) = when_asked
                assert line["target"] == facts[code][0]
                kinds["who"] += 1
                continue
            name, field = question.rsplit(", ", 1)
            _, when, day = facts[territories(asked)[name]]
            if line["target"].isdigit():
                assert field in year
                assert line["target"] == str(day.year)
            else:
                assert field in month
                # The month's name is what is left of the date once the year, and words beside it, are gone.
                assert line["target"] in when
                months = babel.Locale.parse(babel_code(told)).months
                assert line["target"] in [plain(one["wide"][day.month]) for one in months.values()]
            kinds[field in year] += 1
    assert len(kinds) == 3
