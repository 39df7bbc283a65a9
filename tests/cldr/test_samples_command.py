import json
import runpy
import sys

import pytest

from flix_lightning.cldr.examples import MAKERS


def command(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["flix_lightning.cldr", *arguments])
    runpy.run_module("flix_lightning.cldr", run_name="__main__", alter_sys=False)


def test_command_lists_what_there_is_and_what_is_lacking(monkeypatch, capsys):
    command(monkeypatch)
    everything = " ".join(capsys.readouterr().out.split())
    assert all(f"{task}: " in everything for task in MAKERS)
    assert "lacking rw (Kinyarwanda): 3 territories of its own" in everything
    command(monkeypatch, "ner")
    ner = " ".join(capsys.readouterr().out.split())
    assert "sw (Swahili)" in ner
    assert "lacking bbj (Ghomala): CLDR has no locale" in ner
    assert "translation" not in ner


@pytest.mark.parametrize(
    ("task", "language"), [("ner", "sw"), ("qa_cross_lang", "ur"), ("translation", "or")]
)
def test_command_shows_the_files_own_lines(monkeypatch, capsys, lines, task, language):
    command(monkeypatch, task, language, "--split", "test", "--count", "3")
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    written = lines[task, language, "test"][:3]
    assert shown == [
        {key: line[key] for key in line if key not in ("example_id", "language")} for line in written
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("qa_cross_lang", "gbm"), "qa_cross_lang/gbm: CLDR has no locale"),
        (("ner", "rw"), "ner/rw: 3 territories of its own, fewer than 100"),
        (("ner", "fr"), "ner/fr: not a language of this task in the paper"),
        (("parsing", "sw"), "invalid choice: 'parsing'"),
        (("ner", "sw", "--split", "dev"), "invalid choice: 'dev'"),
    ],
)
def test_command_refuses_with_the_reason(monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        command(monkeypatch, *arguments)
    assert caught.value.code not in (0, None)
    assert message in capsys.readouterr().err
