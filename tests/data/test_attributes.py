"""Attributes that follow from another, as a family from the language."""

from pathlib import Path

import pytest
import yaml
from babel.core import get_global
from omegaconf import OmegaConf
from tiny_runs import config

from flix_lightning.common.errors import UserError
from flix_lightning.common.scripts import CONF
from flix_lightning.data.layout import Layout
from flix_lightning.data.mixture import Mixture
from flix_lightning.runs.run import Run

FAMILY = {
    "family": {
        "from": "language",
        "names": {"sw": "Bantu", "zu": "Bantu", "yo": "Yoruboid", "en": "Germanic"},
    }
}


def mixture(attributes=FAMILY, **changed):
    entries = [{"task": "ner", "languages": ["sw", "yo"]}]
    return {
        "name": "mine", "ranks": {"task": 4}, "report": ["ner"], "attributes": attributes, "train": entries,
        "evaluate": [*entries, {"task": "ner", "languages": ["zu"]}], **changed,
    }  # fmt: skip


def families(datasets):
    return {one.language: one.attributes["family"] for one in datasets}


def test_every_entry_gets_them():
    resolved = Mixture.resolve(mixture(), None)
    assert families(resolved.train) == {"sw": "Bantu", "yo": "Yoruboid"}
    assert families(resolved.evaluate) == {"sw": "Bantu", "yo": "Yoruboid", "zu": "Bantu"}
    # Its family is trained: only the language is new.
    assert [one.seen for one in resolved.evaluate] == ["seen", "seen", "unseen_language"]


def test_an_entrys_own_word_comes_first():
    own = [{"task": "ner", "languages": ["sw"], "family": "Sabaki"}, {"task": "ner", "languages": ["yo"]}]
    resolved = Mixture.resolve(mixture(train=own, evaluate=own), None)
    assert families(resolved.train) == {"sw": "Sabaki", "yo": "Yoruboid"}


def test_an_attribute_may_follow_from_another():
    more = {**FAMILY, "phylum": {"from": "family", "names": dict.fromkeys(("Bantu", "Yoruboid"), "NC")}}
    resolved = Mixture.resolve(mixture(more), None)
    assert {one.attributes["phylum"] for one in resolved.evaluate} == {"NC"}


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"family": {"from": "language", "names": {"yo": "Y"}}}, "has no language sw, zu; give .*sw=NAME"),
        ({"family": {"from": "script", "names": {}}}, "from is 'script', and the entry of ner/sw says task"),
        ({"family": {"names": {}}}, "family is .*from: language"),
        ({"family": "language"}, "family is 'language'; .from: language"),
        ({"family": {**FAMILY["family"], "form": 1}}, r"family\.form: no such key; did you mean 'from'"),
        ({"language": FAMILY["family"]}, r"attributes\.language: a kind of your own"),
        ({"family": {"from": "language", "names": {"sw": False}}}, '"no" in quotes'),
    ],
)  # fmt: skip
def test_a_mistake_is_named(attributes, said):
    with pytest.raises(UserError, match=said):
        Mixture.resolve(mixture(attributes), None)


def test_test_sets_of_other_languages_get_them(data):
    trained = Mixture.resolve(mixture(), None)
    tests = trained.evaluating(Layout(data), "test")
    assert families(one for one in tests.evaluate if one.task == "ner")["zu"] == "Bantu"


def test_a_rank_of_the_kind_is_all_that_a_command_adds(tiny):
    flix = Run.resolve(config([*tiny, "+attributes=[family,script]", "+mixture.ranks.family=2"]))
    assert flix.ranks.keys() >= {"family:Atlantic-Congo", "family:Indo-European"}
    assert flix.mixture.evaluate[0].attributes["script"] == "Latn"


# -- the facts that are shipped


@pytest.fixture(scope="module")
def facts():
    return {
        path.stem: yaml.safe_load(path.read_text())["names"] for path in (CONF / "attributes").glob("*.yaml")
    }


def languages():
    """Every language that a shipped mixture names."""
    for path in sorted(Path(CONF / "mixture").glob("*.yaml")):
        text = yaml.safe_load(path.read_text())
        for entry in [*_entries(text.get("train")), *_entries(text.get("evaluate"))]:
            yield from (code for code in entry["languages"] if "$" not in code)


def _entries(part):
    return part if isinstance(part, list) else []


def test_every_language_of_every_mixture_has_every_fact(facts):
    assert set(facts) == {"family", "branch", "script", "nearest"}
    for kind, names in facts.items():
        if kind != "nearest":  # which is of one mixture
            assert {*languages()} - names.keys() == set(), kind
        assert all(isinstance(text, str) for item in names.items() for text in item), kind


def test_scripts_are_those_of_cldr(facts):
    likely, aliases = get_global("likely_subtags"), get_global("language_aliases")
    own = {"de_localized": "de", "pt_br": "pt", "bn_cs": "bn", "hi_cs": "hi", "ta_cs": "ta"}
    for code, script in facts["script"].items():
        code = own.get(code, code)
        assert likely[code if code in likely else aliases[code]].split("_")[1] == script, code


def test_the_nearest_of_a_language_is_trained(facts):
    joint = OmegaConf.load(CONF / "mixture/joint.yaml")
    trained, evaluated = (
        {code for entry in entries for code in entry.languages} for entries in (joint.train, joint.evaluate)
    )
    assert facts["nearest"].keys() == trained | evaluated
    assert {code for code, nearest in facts["nearest"].items() if code == nearest} == trained
    assert set(facts["nearest"].values()) == trained


def test_a_branch_is_of_one_family(facts):
    of_branch = {}
    for code, branch in facts["branch"].items():
        of_branch.setdefault(branch, set()).add(facts["family"][code])
    assert all(len(families) == 1 for families in of_branch.values())
