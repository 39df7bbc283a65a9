"""No value, and no whole text, stands in two of the partitions, whatever the task or language."""

import re
from collections import defaultdict
from dataclasses import replace
from datetime import date
from decimal import Decimal
from itertools import product
from random import Random

import pytest
from cldr_reference import SIZES, values, whole_texts

from flix_lightning.cldr import examples as makers
from flix_lightning.cldr.examples import MAKERS
from flix_lightning.cldr.locales import locality
from flix_lightning.cldr.pretraining.corpus import english
from flix_lightning.cldr.values import Measure, Money

PLACES = "DE FR ES IT JP CN IN US BR CA EG KE".split()


def test_nothing_tested_stands_in_training_data(lines):
    trained = {
        text
        for (task, _, split), rows in lines.items()
        if split == "train"
        for line in rows
        for text in whole_texts(task, line)
    }
    for (task, _, split), rows in lines.items():
        if split != "train":
            assert not trained & {text for line in rows for text in whole_texts(task, line)}


def test_nothing_tested_stands_in_the_pretraining(lines, pretraining):
    seen = "\n".join(f"{pair.input}\n{pair.target or ''}" for pair in pretraining)
    for (task, _, split), rows in lines.items():
        if split != "train":
            for text in {text for line in rows for text in whole_texts(task, line)}:
                # `5 days` does not stand in `145 days`.
                as_it_is = rf"(?<!\w)(?<!\d[.,]){re.escape(text)}(?!\w|[.,]\d)"
                assert text not in seen or not re.search(as_it_is, seen), text


@pytest.fixture
def small_world(monkeypatch):
    """So few places and values that all of them come up: only their partitions keep them apart."""

    def few(language):
        local = locality(language)
        return replace(local, territories={one: local.territories[one] for one in PLACES}, languages={})

    monkeypatch.setattr(makers, "locality", few)
    monkeypatch.setattr(makers, "random_date", lambda rng: date(2001, rng.randint(1, 12), rng.randint(1, 4)))
    for name, kind in (("random_money", Money), ("random_measure", Measure)):
        monkeypatch.setattr(
            makers,
            name,
            lambda rng, choices, kind=kind: kind(Decimal(rng.randint(2, 12)), rng.choice(choices)),
        )


def test_a_value_has_one_partition_in_every_language(small_world):
    found = defaultdict(set)
    for language, split in product(("en", "sw", "ha", "bn", "ta", "ja", "am"), SIZES):
        rng = Random(f"{language}/{split}")
        for _ in range(80):
            for value in values(MAKERS["semantic_parsing"](language, rng, split)["target"]):
                found[value].add(split)
    assert {len(splits) for splits in found.values()} == {1}
    assert len(found) > 150


@pytest.mark.parametrize("split", ["validation", "test"])
def test_tasks_and_languages_share_no_text_across_splits(small_world, split):
    def texts(part):
        for task, language in product(
            ("semantic_parsing", "translation", "ner"), ("en", "pcm", "luo", "lg", "sw", "ha", "yo", "bm")
        ):
            rng = Random(f"{task}/{language}/{part}")
            for _ in range(50):
                yield from whole_texts(task, MAKERS[task](language, rng, part))

    trained = set(texts("train"))
    rng = Random(0)
    for task in ["semantic_parsing", "ner"] * 400:
        pair = english(task, rng)
        trained |= {pair.input.split(": ", 1)[1], pair.target}
    tested = set(texts(split))
    assert not trained & tested
    assert len(tested) > 300
