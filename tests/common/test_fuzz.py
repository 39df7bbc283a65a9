"""Whatever the bytes, texts and settings: an answer, or one line that says what is wrong with them."""

import json
import math

import pytest
from folders import write_dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flix_lightning.common.errors import UserError
from flix_lightning.data.layout import Layout, read_lines
from flix_lightning.data.mixture import Mixture
from flix_lightning.tasks.definitions import shipped_tasks
from flix_lightning.tasks.metrics import get_metric, score_texts

settings.register_profile("fuzz", derandomize=True, deadline=None, max_examples=60)
FUZZ = settings.get_profile("fuzz")


def tried(call):
    """What a call gives, or what it says is wrong."""
    try:
        return call(), None
    except UserError as error:
        return None, str(error)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
# Nearly lines of NER, so that what comes after their parsing is reached too.
NEARLY = st.fixed_dictionaries({}, optional={"text": VALUES, "target": VALUES, "x": VALUES}).map(
    lambda line: json.dumps(line).encode()
)
LINES = st.lists(st.binary(max_size=20) | NEARLY, max_size=4).map(b"\n".join)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "sw.jsonl"


@FUZZ
@given(content=st.binary(max_size=60) | LINES)
@example(content=b'{"text": "a", "target": "\\ud83d"}')
@example(content=b'{"text": "a", "target": "b", "x": 1e999}')
def test_any_bytes_are_examples_or_one_line(path, content):
    path.write_bytes(content)
    found, said = tried(lambda: list(read_lines(path, shipped_tasks()["ner"])))
    if said is not None:
        assert said.startswith(f"{path}:")
        assert "\n" not in said
    else:
        assert len(found) == len(content.removesuffix(b"\n").split(b"\n"))
        assert all(type(line["text"]) is type(line["target"]) is str for line in found)


TEXTS = st.text(max_size=30)


@FUZZ
@given(
    lines=st.lists(
        st.fixed_dictionaries({"text": TEXTS, "target": TEXTS}, optional={"x": TEXTS}), min_size=1
    ),
    ascii=st.booleans(),
)
def test_lines_come_back_as_they_were(path, lines, ascii):
    path.write_bytes("".join(json.dumps(line, ensure_ascii=ascii) + "\n" for line in lines).encode())
    assert list(read_lines(path, shipped_tasks()["ner"])) == lines


@settings(FUZZ, max_examples=20)
@given(line=st.dictionaries(st.sampled_from(["question", "title", "context", "input", "text"]), TEXTS))
@pytest.mark.parametrize("name", shipped_tasks())
def test_any_text_is_prompted_whole(name, line):
    task = shipped_tasks()[name]
    line = {key: "" for key in task.keys} | line
    rendered = task.render(line, "Swahili")
    for key in task.input_keys:
        text = line[key].replace("\t", " ") if task.tabs_to_spaces else line[key]
        assert text in rendered


# -- metrics

XTREME_UPS = ("span_f1", "exact_match", "qa_f1", "chrf")

# Texts that are alike in part, with what the scorers look at: labels, separators, punctuation, articles.
ALIKE = st.lists(
    st.sampled_from(["PER: ", "LOC:", " $$ ", "a", "the ", "b!", " ", "é", "東"]), max_size=6
).map("".join)
PAIRS = st.lists(st.tuples(TEXTS | ALIKE, TEXTS | ALIKE), min_size=1, max_size=6)


def score(name, pairs):
    return score_texts(name, *zip(*pairs, strict=True))


@pytest.mark.parametrize("name", XTREME_UPS)
@settings(FUZZ, max_examples=30)
@given(pairs=PAIRS, data=st.data())
def test_a_score_is_of_the_pairs_alone(name, pairs, data):
    whole = score(name, pairs)
    assert 0 <= whole <= 100 + 1e-9
    assert score(name, data.draw(st.permutations(pairs))) == pytest.approx(whole, abs=1e-9)


def nothing_to_find(name, texts):
    """Whether the scorer's own rules give gold less than 100 (xtreme-up's scorer; sacrebleu)."""
    if name == "span_f1":  # no entity at all scores 0
        return not any(len(piece.split(":")) == 2 for text in texts for piece in text.split(" $$ "))
    if name == "qa_f1":  # so does an answer of articles and punctuation alone
        return any(get_metric(name).count(text, text)[0] == 0 for text in texts)
    return name == "chrf" and not any(text.split() for text in texts)  # and nothing but white space


@pytest.mark.parametrize("name", XTREME_UPS)
@settings(FUZZ, max_examples=30)
@given(texts=st.lists(TEXTS | ALIKE, min_size=1, max_size=6))
def test_gold_is_100(name, texts):
    expected = pytest.approx(100)
    found = score(name, [(text, text) for text in texts])
    assert found == expected or nothing_to_find(name, texts)


# -- mixtures


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    root = tmp_path_factory.mktemp("mixture")
    write_dataset(root, "ner", "sw", 1)
    return Layout(root)


ENTRIES = VALUES | st.lists(
    VALUES
    | st.fixed_dictionaries({}, optional={"task": VALUES | st.just("ner"), "languages": VALUES, "x": VALUES}),
    max_size=2,
)
MIXTURES = st.fixed_dictionaries(
    {},
    optional={
        "name": VALUES | st.just("m"),
        "ranks": VALUES | st.just({"task": 1}),
        "train": ENTRIES | st.just([{"task": "ner", "languages": ["sw"]}]),
        "evaluate": ENTRIES | st.just([{"task": "ner", "languages": ["sw"]}]),
        "report": VALUES | st.just(["ner"]),
        "sampling": VALUES | st.fixed_dictionaries({}, optional={"temperature": VALUES, "cap": VALUES}),
    },
)


@FUZZ
@given(mixture=MIXTURES)
def test_any_mixture_is_one_or_one_line(layout, mixture):
    found, said = tried(lambda: Mixture.resolve(mixture, layout))
    if said is not None:
        assert "\n" not in said
    else:
        assert found.train
        assert 0 < found.temperature <= math.inf
