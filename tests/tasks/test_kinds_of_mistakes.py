from collections import Counter

import pytest

from flix_lightning.tasks.metrics import score_texts
from flix_lightning.tasks.mistakes import KINDS

ANN, ROME = "PER: Ann", "LOC: Rome"


@pytest.mark.parametrize(
    ("prediction", "target", "kinds"),
    [
        (f"{ANN} $$ {ROME}", f"{ROME} $$ {ANN}", {"right": 2}),
        ("", "", {}),
        ("", ANN, {"missed": 1}),
        (ANN, "", {"invented": 1}),
        ("LOC: Ann", ANN, {"other label": 1}),
        ("PER: Ann Lee", "PER: Lee", {"other boundaries": 1}),
        ("LOC: Ann Lee", "PER: Lee", {"missed": 1, "invented": 1}),
        (f"{ANN} $$ {ANN}", ANN, {"right": 1, "repeated": 1}),
        (f"{ANN} $$ {ANN} $$ {ANN}", "", {"repeated": 2, "invented": 1}),
        (f"{ANN} $$ {ANN}", "LOC: Ann", {"other label": 1, "repeated": 1}),
        (ANN, f"{ANN} $$ {ANN}", {"right": 1, "missed": 1}),
        ("Ann", ANN, {"missed": 1, "not an entity": 1}),
        ("PER: Ann: Lee", ANN, {"missed": 1, "not an entity": 1}),
        # The same text counts before a shared word, so that each entity has its nearest partner.
        ("LOC: Ann Lee $$ PER: Lee", "PER: Ann Lee", {"other label": 1, "invented": 1}),
    ],
)
def test_kinds_of_entities(prediction, target, kinds):
    assert KINDS["ner"](prediction, target) == kinds


DATE = "[IN:DATE [SL:YEAR 1928 ] [SL:DAY 30 ] ]"


@pytest.mark.parametrize(
    ("prediction", "kind"),
    [
        (DATE, "right"),
        ("", "malformed"),
        ("30 1928", "malformed"),
        (DATE[:-2], "malformed"),
        (f"{DATE} ]", "malformed"),
        (DATE.replace("DATE", "MONEY"), "other intents"),
        (f"[IN:LIST {DATE} ]", "other intents"),
        ("[IN:MONEY [SL:AMOUNT 1928 ] ]", "other intents"),
        (DATE.replace("DAY", "MONTH"), "other slots"),
        ("[IN:DATE [SL:YEAR 1928 ] ]", "other slots"),
        ("[IN:DATE [SL:DAY 30 ] [SL:YEAR 1928 ] ]", "other slots"),
        (DATE.replace("1928", "1929"), "other words"),
        (DATE.replace(" 30", ""), "other words"),
    ],
)
def test_kinds_of_parses(prediction, kind):
    assert KINDS["semantic_parsing"](prediction, DATE) == {kind: 1}


def test_what_is_right_is_what_the_metrics_count():
    pairs = [(ANN, ANN), ("LOC: Ann", ANN), (f"{ANN} $$ {ROME} $$ {ANN}", ROME), ("Ann", ROME)]
    kinds = sum((KINDS["ner"](*pair) for pair in pairs), Counter())
    extra = kinds["invented"] + kinds["repeated"]
    predicted = kinds["right"] + kinds["other label"] + kinds["other boundaries"] + extra
    wanted = kinds["right"] + kinds["other label"] + kinds["other boundaries"] + kinds["missed"]
    f1 = 200 * kinds["right"] / (predicted + wanted)
    assert score_texts("span_f1", *zip(*pairs, strict=True)) == pytest.approx(f1)
