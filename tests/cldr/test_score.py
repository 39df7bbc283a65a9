import re
import sys

import pytest
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from flix_lightning.cldr.benchmark import datasets
from flix_lightning.cldr.locales import LANGUAGES
from flix_lightning.cldr.pretraining import score
from flix_lightning.models.base import BUILT_IN

ASKED = [code for task, code in datasets() if task == "qa_cross_lang"]


def run(monkeypatch, capsys, *arguments):
    """The command's exit code and what it prints."""
    monkeypatch.setattr(sys, "argv", ["score", *arguments, "--count", "5"])
    code = None
    try:
        score.main()
    except SystemExit as error:
        code = error.code
    return code, capsys.readouterr().out


@pytest.fixture
def answered(monkeypatch):
    """Have the base answer by a function of the input and the target."""

    def patch(answer):
        cases = [case for task in score.ENGLISH_TASKS for case in score.task_cases(task, 5)]
        cases += [case for code in ASKED for case in score.name_cases(code, 5)]
        targets = dict(cases)
        monkeypatch.setattr(
            score, "answer", lambda base, inputs: [answer(one, targets.get(one, one[6:])) for one in inputs]
        )

    return patch


def test_an_untrained_base_fails_the_gate(tmp_path, monkeypatch, capsys):
    tokenizer = AutoTokenizer.from_pretrained(BUILT_IN["cldr-base"])
    sizes = {"d_model": 16, "d_kv": 2, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    config = T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, **sizes)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    code, out = run(monkeypatch, capsys, str(tmp_path))
    assert "names on average: 0.0 %, at least 80 are needed" in code
    assert code.count("at least 95 is needed") == len(score.ENGLISH_TASKS)
    assert code.count("at least 60 are needed") == len(ASKED)
    assert "restored, %: mean 0.0" in out


def test_a_perfect_base_passes(answered, monkeypatch, capsys):
    answered(lambda text, target: target)
    code, out = run(monkeypatch, capsys)
    assert code is None
    assert len(re.findall(r"\| \w+ \| \w+ \| 100.0 \|", out)) == len(score.ENGLISH_TASKS)
    assert out.count("mean 100.0") == 2
    assert set(re.findall(r"(\w+) 100[,.]", out)) >= set(LANGUAGES)


def test_one_language_of_many_fails_the_gate(answered, monkeypatch, capsys):
    answered(lambda text, target: "?" if text.startswith("Telugu") else target)
    code, _ = run(monkeypatch, capsys)
    assert code.split("\n")[2:] == ["names from Telugu: 0.0 %, at least 60 are needed"]


def test_an_echo_copies_everything_and_solves_nothing(answered, monkeypatch, capsys):
    answered(lambda text, target: text.partition(": ")[2])
    code, out = run(monkeypatch, capsys)
    assert "semantic_parsing in English: 0.0" in code
    assert "names on average: 0.0 %" in code
    assert "without a fault, %: mean 100.0" in out


def test_a_name_that_reads_alike_in_both_languages_is_not_asked():
    for code in ASKED:
        cases = score.name_cases(code, 1000)
        assert len(cases) > 100
        assert not [text for text, name in cases if f": {name};" in text]
