"""The page of models against the trial that writes it: some families anew, the rest by the page itself."""

import pytest

from trials import families
from trials.families import FAMILIES, PAGE, Verdict, examine, parse, render, versions

PAGE_TEXT = PAGE.read_text()
VERDICTS = {verdict.family: verdict for verdict in parse(PAGE_TEXT)}
#: One for each kind of verdict.
TRIED = "bert fsmt git glm4_moe gpt2 led llama4_text mamba rwkv t5 xlnet zamba".split()


def test_the_page_is_what_its_rows_come_to():
    assert render(list(VERDICTS.values()), versions()) == PAGE_TEXT


def test_every_family_is_right_or_refused():
    assert VERDICTS.keys() == set(FAMILIES)
    assert not [verdict for verdict in VERDICTS.values() if verdict.wrong]


@pytest.mark.parametrize("family", TRIED)
def test_a_family_is_as_the_page_says(family):
    assert examine(family) == VERDICTS[family]


def test_what_is_neither_right_nor_refused_is_found(monkeypatch):
    monkeypatch.setattr(families, "merge", lambda base, *_: base)  # as if no update were added
    verdict = examine("gpt2")
    assert (verdict.training, verdict.generation) == ("WRONG", "WRONG")
    assert verdict.wrong


def test_a_family_without_a_tiny_form_is_said_to_be_so(monkeypatch):
    monkeypatch.setattr(families, "save_tiny", lambda *_: {}["size"])
    assert examine("gpt2") == Verdict("gpt2", "not tried", note="'size'")
