import logging

import pytest

from flix_lightning.tasks.definitions import Tasks
from flix_lightning.tasks.languages import base_names, find_name

# Every code of the paper's Appendix B.
PAPER = (
    "am ar as bbj be bho bm bn brx de de_localized ee en es fi fr gbm gom gu ha hi hne hu id ig ja kn ko lg "
    "luo mai ml mni mos mr mwr ny or pa pcm ps pt_br ru rw sa sn sw ta te th tn tr tw ur wo xh yo zu"
)


@pytest.mark.parametrize("code", [*PAPER.split(), "no"])
def test_paper_languages_are_named_without_the_library(code):
    """Their names stand in prompts, so that another release of a library must not change them."""
    assert base_names()[code] == find_name(code)
    assert find_name(code) != code


def test_names_tell_the_papers_languages_apart():
    assert len(set(map(find_name, PAPER.split()))) == len(PAPER.split())


@pytest.mark.parametrize(
    ("code", "name"),
    {
        "quz": "Cusco Quechua",
        "quy": "Ayacucho Quechua",
        "swh_Latn": "Swahili",
        "yor_Latn": "Yoruba",
        "npi_Deva": "Nepali",
        "zho_Hans": "Chinese",
        "zh-Hant": "Traditional Chinese",
        "zho_Hant": "Traditional Chinese",
        "sr_Latn": "Serbian (Latin)",
        "bm_Nkoo": "Bambara (N’Ko)",
        "pt-BR": "Brazilian Portuguese",
        "es-419": "Latin American Spanish",
        "cmn": "Mandarin Chinese",
    }.items(),
)
def test_codes_of_bcp_47_of_iso_639_3_and_of_flores(code, name):
    assert find_name(code) == name


@pytest.mark.parametrize("code", ["qqqq", "swahili", "qaa", "", "x", "en2sw", "../x"])
def test_what_is_no_code_has_no_name(code):
    assert find_name(code) is None
    assert Tasks.of().language_name(code) == code


def test_names_of_ones_own_come_first():
    tasks = Tasks.of({}, {"quz": "Qusqu runasimi", "own1": "My language"})
    assert [tasks.language_name(code) for code in ("quz", "own1", "quy")] == [
        "Qusqu runasimi",
        "My language",
        "Ayacucho Quechua",
    ]


def test_the_hash_of_a_run_has_the_names_that_older_runs_could_not_have():
    tasks = Tasks.of({}, {"sw": "Kiswahili", "ha": "Hausa", "own1": "My language"})
    assert tasks.deciding_names(["ha", "sw", "yo", "quz", "qqqq", "yo"]) == {
        "sw": "Kiswahili",
        "quz": "Cusco Quechua",
        "qqqq": "qqqq",
    }


def test_codes_without_a_name_are_said_once(caplog):
    tasks = Tasks.of({}, {"own1": "My language"})
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            tasks.warn_of_codes(["swahilli", "sw", "own1", "qqqq", "qqqq", "quz"])
    (record,) = caplog.records
    said = record.getMessage()
    assert "qqqq, swahilli (did you mean sw, Swahili?);" in said
    assert "data.languages={qqqq: NAME}" in said
