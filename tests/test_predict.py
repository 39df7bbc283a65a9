import json
import os
import shutil

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, ByT5Tokenizer

import commands
import reference
from conftest import SEEN, UNSEEN
from flix_lightning import streaming
from flix_lightning.errors import UserError
from flix_lightning.predict import load
from tiny_runs import checkpoint, config, do, json_lines

PROMPTS = {"semantic_parsing": "parse {}: {}", "ner": "find entities in {}: {}"}
NAMES = {"sw": "Swahili", "en": "English", "yo": "Yoruba", "zu": "Zulu"}


@pytest.fixture(scope="module")
def done(tiny, tmp_path_factory):
    return do(tiny, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def lines(data):
    """Every line of the tests' data, those of all datasets in turn, with its task and language."""
    files = [
        [{**line, "task": task, "language": code} for line in json_lines(data / task / "test" / f"{code}.jsonl")]
        for task, code in [*SEEN, *UNSEEN]
    ]
    return [line for turn in zip(*files, strict=True) for line in turn]


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def alone(done, base, name, text, features):
    """What Transformers generates for one text with the features of a checkpoint merged into the base."""
    state = checkpoint(done, name)
    on = [one for one in features if one in state["ranks"]]
    model = reference.merged(AutoModelForSeq2SeqLM.from_pretrained(base), state["adapter"], state["ranks"], on)
    inputs = ByT5Tokenizer()([text], return_tensors="pt")
    ids = model.eval().generate(**inputs, max_new_tokens=4, do_sample=False)[0]
    return ByT5Tokenizer().decode(ids, skip_special_tokens=True)


def test_lines_of_all_kinds_in_one_batch_are_answered_as_each_alone(done, base, caplog):
    text = "test xx"
    given = {
        "as in training": ({"task": "ner", "language": "sw", "text": text}, "ner", "sw"),
        "its task's own key": ({"task": "semantic_parsing", "language": "en", "input": text}, "semantic_parsing", "en"),
        "text in place of it": ({"task": "semantic_parsing", "language": "yo", "text": text}, "semantic_parsing", "yo"),
        "a language never trained": ({"task": "ner", "language": "zu", "text": text, "id": 7}, "ner", "zu"),
        "a code of no language": ({"task": "ner", "language": "xxx", "text": text}, "ner", "xxx"),
        "a language alone": ({"language": "sw", "text": text}, None, "sw"),
        "nothing": ({"text": text}, None, None),
        "a ready prompt": ({"task": "ner", "language": "sw", "prompt": "ready"}, "ner", "sw"),
    }  # fmt: skip
    expected = []
    for name, (line, task, language) in given.items():
        read = line.get("prompt", text)
        if task and language in NAMES and "prompt" not in line:
            read = PROMPTS[task].format(NAMES[language], text)
        features = [f"task:{task}", f"language:{language}"]
        expected.append(alone(done, base, f"best-{task}" if task else "last", read, features))
    assert len(set(expected)) > 3
    model = load(done)
    assert model.predict([line for line, _, _ in given.values()]) == expected
    said = [record.getMessage() for record in caplog.records]
    assert [one for one in said if "language:zu (1), language:xxx (1)" in one]
    assert [one for one in said if "not used: id (1)" in one]
    assert [one for one in said if "prompt by: 3" in one]
