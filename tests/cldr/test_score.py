import re

import pytest

from flix_lightning.cldr.locales import LANGUAGES
from flix_lightning.cldr.pretraining import score
from flix_lightning.models.base import Base


@pytest.fixture
def echo(monkeypatch):
    """A model that gives back what follows the prompt: perfect at copying, and no good at the tasks."""
    monkeypatch.setattr(score, "answer", lambda base, inputs: [one.partition(": ")[2] for one in inputs])
    return Base(model=None, tokenizer=None, is_encoder_decoder=True)


def test_an_echo_copies_everything_and_solves_nothing(echo):
    report = score.report(echo, count=10)
    assert "mean 100.0" in report
    scores = dict(re.findall(r"\| (\w+) \| \w+ \| ([\d.]+) \|", report))
    assert set(scores) == {"semantic_parsing", "ner", "qa_in_lang", "qa_cross_lang"}
    assert scores["semantic_parsing"] == scores["ner"] == "0.0"
    assert set(re.findall(r"(\w+) 100[,.]", report)) >= set(LANGUAGES)


def test_a_perfect_model_has_full_marks(monkeypatch, echo):
    answers = dict(
        pair for task in score.ENGLISH_TASKS for pair in zip(*score.task_cases(task, 10), strict=True)
    )
    monkeypatch.setattr(
        score, "answer", lambda base, inputs: [answers.get(one, one.partition(": ")[2]) for one in inputs]
    )
    assert score.report(echo, count=10).count("100.0 |") == len(score.ENGLISH_TASKS)
