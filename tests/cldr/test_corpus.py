"""What the base model reads."""

import re
from collections import Counter, defaultdict
from itertools import islice, product
from random import Random

import pytest
from babel.lists import format_list
from cldr_reference import forms, plain, territories, values

from flix_lightning.cldr.locales import LANGUAGES, locality
from flix_lightning.cldr.pretraining.corpus import pairs
from flix_lightning.tasks.languages import find_name

PROMPTS = (
    "parse (.+?): ",
    "translate to (.+?): ",
    "find entities in (.+?): ",
    "answer in (.+?): ",
    "answer (.+?) in English: ",
)


def test_pretraining_has_the_tasks_in_english_only(pretraining):
    prompts = Counter()
    for pair in pretraining:
        found = [(prompt, match[1]) for prompt in PROMPTS if (match := re.match(prompt, pair.input))]
        prompts.update(found)
        if not found:
            assert pair.target is None or re.match(
                r"(copy|pick \d|last|drop \d|reverse): |look up ", pair.input
            )
            assert not re.search(r"\[IN:|\$\$|(LOC|DATE|MONEY): |question: ", f"{pair.input} {pair.target}")
    assert {language for _, language in prompts} == {"English"}
    assert len(prompts) == 4
    assert not any(prompt.startswith("translate") for prompt, _ in prompts)


def test_pretraining_tasks_are_english_throughout(pretraining):
    for pair in pretraining:
        if pair.input.startswith("parse"):
            choices = product(*(forms(value, "en") for value in values(pair.target)))
            assert pair.input.split(": ", 1)[1] in {plain(format_list(one, locale="en")) for one in choices}
        elif pair.input.startswith("find"):
            places = [piece.split(": ")[1] for piece in pair.target.split(" $$ ") if piece.startswith("LOC")]
            assert set(places) <= set(territories("en"))
        elif pair.input.startswith("answer"):
            context = pair.input.split(" context: ")[1]
            assert {record.split(": ")[0] for record in context.split("; ")} <= set(territories("en"))


def test_skills_say_what_was_done(pretraining):
    done = Counter()
    for pair in pretraining:
        if pair.stream != "skill":
            continue
        skill, number, listed = re.fullmatch(r"(\w+)(?: (\d))?: (.*)", pair.input).groups()
        items = listed.split("; ")
        at = int(number or 1) - 1
        wanted = {
            "copy": items,
            "pick": items[at : at + 1],
            "last": items[-1:],
            "drop": [item for n, item in enumerate(items) if n != at],
            "reverse": items[::-1],
        }[skill]
        assert pair.target.split("; ") == wanted
        done[skill] += 1
    assert len(done) == 5


def lists(pair) -> dict[str, list[tuple[str, bool]]]:
    """Each language's names, and whether they are hidden."""
    found, at = {}, 0
    for item in pair.input.split("; "):
        label, colon, name = item.rpartition(": ")
        if colon:
            names = found.setdefault(label, [])
        start = at + len(item) - len(name)
        names.append((name, (start, start + len(name)) in pair.hidden))
        at += len(item) + 2
    return found


def test_names_are_the_same_in_two_languages_and_one_is_hidden(pretraining):
    codes = {find_name(code): code for code in LANGUAGES}
    labels, checked = Counter(), 0
    for pair in pretraining:
        if pair.stream != "names":
            assert not pair.hidden
            continue
        named = lists(pair)
        first, second = named.values()
        assert 1 <= len(first) == len(second) <= 3
        assert sum(hidden for _, hidden in first + second) == len(pair.hidden) == 1
        labels.update(named.keys())
        places = [
            {territories(codes[label]).get(name) for name, _ in names}
            if label in codes
            else {name for name, _ in names}
            for label, names in named.items()
        ]
        if None not in places[0] | places[1]:
            assert places[0] == places[1]
            checked += 1
    assert labels.keys() == {*codes, "code"}
    assert labels["code"] < 0.2 * labels.total()
    assert checked > 500


def test_no_word_for_month_is_listed(pretraining):
    """Years and days are counted like other units; asking for a month is for its task to teach."""
    asked = {
        (find_name(code), local.fields["month"]) for code in LANGUAGES if (local := locality(code)).fields
    }
    listed = {
        (label, name)
        for pair in pretraining
        if pair.stream == "names"
        for label, names in lists(pair).items()
        for name, _ in names
    }
    assert len(asked) > 25
    assert not asked & listed


def test_records_are_told_twice_and_a_part_is_hidden_the_second_time():
    codes = {find_name(code): code for code in LANGUAGES}
    hidden, languages = Counter(), Counter()
    for pair in islice(pairs(Random(0), 4912), 1500):
        if pair.stream != "records":
            continue
        blocks = []  # a language's records: (code of the territory, place of the name, month and year)
        at = 0
        for item in pair.input.split("; "):
            *label, name, month = item.split(": ")
            if label:
                blocks.append((label[0], []))
            places = territories(codes[blocks[-1][0]])
            start = at + item.index(name)
            blocks[-1][1].append(
                (places.get(name), range(start, at + len(item)), re.search(r"\d{4}", month)[0])
            )
            at += len(item) + 2
        (first, told), (second, again) = blocks
        assert 2 <= len(told) <= 4
        assert 1 <= len(again) <= 2
        assert {(code, year) for code, _, year in again} <= {(code, year) for code, _, year in told}
        ((start, stop),) = pair.hidden
        (around,) = [place for _, place, _ in again if start in place]
        assert stop <= around.stop
        text = pair.input[start:stop]
        hidden["year" if text.isdigit() else "name" if start == around.start else "month"] += 1
        languages["same" if first == second else "English" if "English" in (first, second) else "other"] += 1
    assert hidden.total() > 700
    assert all(count > 100 for count in (*hidden.values(), *languages.values()))


def test_a_record_is_looked_up_by_its_name_or_its_date_in_any_language():
    codes = defaultdict(set)  # name -> the territories that it names in some language
    for language in LANGUAGES:
        for name, code in territories(language).items():
            codes[name].add(code)
    asked, same = Counter(), Counter()
    for pair in islice(pairs(Random(0), 6500), 1500):
        if pair.stream != "look up":
            continue
        kind, query, listed = re.fullmatch(r"look up (year of |month of |)(.+?); (.+)", pair.input).groups()
        records = dict(record.split(": ", 1) for record in listed.split("; "))
        assert 2 <= len(records) <= 4
        if pair.target in records:
            asked["by date"] += 1
            continue
        meant = [name for name in records if codes[name] & codes[query]]
        assert any(pair.target in records[name] for name in meant)
        assert pair.target.isdigit() == (kind == "year of ")
        asked[kind] += 1
        same[query in records] += 1
    assert len(asked) == 4
    assert all(count > 40 for count in (*asked.values(), *same.values()))


def test_values_are_the_same_in_two_languages_and_one_is_hidden():
    codes = {find_name(code): code for code in LANGUAGES}
    numbers, hidden = 0, Counter()
    for pair in islice(pairs(Random(0), 10500), 1500):
        if pair.stream != "values":
            continue
        one, _, rest = pair.input.partition(": ")
        first, label, second = re.fullmatch(r"(.+); ([^;:]+): (.+)", rest).groups()
        assert {one, label} <= set(codes)
        ((start, stop),) = pair.hidden
        assert pair.input[start:stop] in (first, second)
        hidden["English" if label == "English" else "other"] += pair.input[start:stop] == second
        digits = [sorted(re.findall(r"[1-9]\d*", text)) for text in (first, second)]
        numbers += digits[0] == digits[1]
    assert numbers > 250  # a month may be written by its number
    assert min(hidden.values()) > 50


def test_the_words_that_questions_ask_with_are_restored_among_names():
    found = set()
    for pair in islice(pairs(Random(0), 6500), 4000):
        if pair.stream == "names":
            found |= {(label, name) for label, names in lists(pair).items() for name, _ in names}
    assert {("Finnish", "kuukaudet"), ("Bangla", "বছর")} <= found


def test_late_steps_have_other_shares():
    shares = []
    for step in (0, 1759, 1760, 4607, 4608, 4912):
        streams = Counter(pair.stream for pair in islice(pairs(Random(0), step), 500))
        shares.append(streams["names"] / 500)
    assert shares[0] == shares[1] == pytest.approx(0.55, abs=0.06)
    assert shares[2] == shares[3] == pytest.approx(0.8, abs=0.06)
    assert shares[4] == pytest.approx(0.45, abs=0.06)
    assert shares[5] == pytest.approx(0.15, abs=0.06)
