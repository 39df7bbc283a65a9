"""Guesses are held against readers that really guess, on the benchmark's own examples."""

import random
import re
from statistics import fmean

import pytest

from flix_lightning.cldr.benchmark import VERSIONS, datasets, examples
from flix_lightning.cldr.guessing import GUESSES, guess
from flix_lightning.data.layout import Example
from flix_lightning.tasks.definitions import shipped_tasks
from flix_lightning.tasks.languages import find_name
from flix_lightning.tasks.metrics import score_texts

VERSION = [*VERSIONS][-1]


def read(task, language, count=60):
    lines = examples(VERSION, task, language, "test", count, 0)
    return [
        Example("", shipped_tasks()[task].render(line, find_name(language)), line["target"], line)
        for line in lines
    ]


def guessed_answer(example, rng):
    """Pick a record, and of it what the question wants."""
    territory, month, year = rng.choice(
        [
            re.fullmatch(r"(.*): (\D*) (\d{4})", one).groups()
            for one in example.attributes["context"].split("; ")
        ]
    )
    question, target = example.attributes["question"], example.target
    if re.fullmatch(r".* \d{4}\?", question):
        return territory
    return year if target.isdigit() else month


@pytest.mark.parametrize("language", ["te", "fi", "ur"])
def test_an_answer_is_guessed_as_a_random_reader_does(language):
    found = read("qa_cross_lang", language)
    rng = random.Random(0)
    rounds = [
        score_texts("qa_f1", [guessed_answer(one, rng) for one in found], [one.target for one in found])
        for _ in range(200)
    ]
    assert guess("qa_cross_lang", language, found) == pytest.approx(fmean(rounds), abs=1)


@pytest.mark.parametrize("language", ["fi", "ko", "ar", "en"])
def test_in_language_answers_are_guessed_alike(language):
    assert guess("qa_in_lang", language, read("qa_in_lang", language)) == pytest.approx(25, abs=1)


def line(task, text, target):
    key = shipped_tasks()[task].input_keys[0]
    return Example("", text, target, {key: text, "target": target})


def test_parts_of_a_list_get_the_best_label():
    found = [
        line("ner", "Kenya, Uganda na Kiswahili", "LOC: Kenya $$ LOC: Uganda"),
        line("ner", "3 Mei 2001 na Kenya", "DATE: 3 Mei 2001 $$ LOC: Kenya"),
    ]
    # Five parts are labelled LOC: three are right, of four.
    assert guess("ner", "sw", found) == pytest.approx(100 * 2 * 3 / (5 + 4))


def test_numbers_are_copied_into_the_best_template():
    found = [
        line("semantic_parsing", "5,5 kg", "[IN:MEASURE [SL:AMOUNT 5.5 ] [SL:UNIT kilogram ] ]"),
        line("semantic_parsing", "7 kg", "[IN:MEASURE [SL:AMOUNT 7 ] [SL:UNIT kilogram ] ]"),
        line("semantic_parsing", "9 m", "[IN:MEASURE [SL:AMOUNT 9 ] [SL:UNIT meter ] ]"),
        line("semantic_parsing", "2.3.2001", "[IN:DATE [SL:YEAR 2001 ] [SL:MONTH 3 ] [SL:DAY 2 ] ]"),
    ]
    assert guess("semantic_parsing", "fi", found) == 75


@pytest.mark.parametrize("task", GUESSES)
def test_guessing_is_far_from_solving(task):
    scores = [guess(task, code, read(task, code, 40)) for one, code in datasets() if one == task][:6]
    assert all(5 < score < 60 for score in scores)
