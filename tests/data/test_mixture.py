import logging
import math
import time
from pathlib import Path

import hydra
import pytest
from babel import Locale
from folders import line_of, write_dataset, write_split
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from flix_lightning.common.errors import UserError
from flix_lightning.data.layout import Layout
from flix_lightning.data.mixture import Mixture, NothingThere
from flix_lightning.reports import paper
from flix_lightning.tasks.languages import find_name

CONF = Path(__file__).parents[2] / "conf"


def config(**changes):
    return {
        "name": "small",
        "ranks": {"task": 4, "language": 2},
        "train": [
            {"task": "ner", "languages": ["sw", "yo"]},
            {"task": "translation", "languages": ["sw", "am"]},
        ],
        "evaluate": [{"task": "ner", "languages": ["sw", "am", "zu"]}],
        "report": ["ner"],
        **changes,
    }


@pytest.fixture
def folder(tmp_path):
    for task, language in [("ner", "sw"), ("ner", "yo"), ("translation", "sw"), ("translation", "am")]:
        write_dataset(tmp_path, task, language, 3)
    for language in ("am", "zu"):  # evaluated without training: their test split only
        write_dataset(tmp_path, "ner", language, 3, splits=["test"])
    return tmp_path


def named(datasets):
    return [(dataset.task, dataset.language) for dataset in datasets]


def test_resolves_from_dict_and_from_hydra(folder):
    for cfg in (config(), OmegaConf.create(config())):
        mixture = Mixture.resolve(cfg, Layout(folder))
        assert named(mixture.train) == [
            ("ner", "sw"),
            ("ner", "yo"),
            ("translation", "sw"),
            ("translation", "am"),
        ]
        assert mixture.train[0].attributes == {"task": "ner", "language": "sw", "shared": "all"}
        assert [(one.language, one.seen) for one in mixture.evaluate] == [
            ("sw", "seen"),
            ("am", "unseen_combination"),
            ("zu", "unseen_language"),
        ]
        assert (mixture.temperature, mixture.cap) == (math.inf, None)
        assert mixture.ranks == {"task": 4, "language": 2}


def test_selection_sees_seen_datasets_of_reported_tasks_only(folder):
    evaluate = [
        {"task": "translation", "languages": ["sw"]},
        {"task": "ner", "languages": ["zu", "sw"]},
    ]
    mixture = Mixture.resolve(config(evaluate=evaluate), Layout(folder))
    assert named(mixture.datasets("validation").values()) == [("ner", "sw")]
    assert list(mixture.datasets("validation")) == [2]
    assert list(mixture.datasets("test")) == [0, 1, 2]
    read = [path.relative_to(folder).as_posix() for path in mixture.paths(Layout(folder))]
    assert read[4:] == [
        "ner/validation/sw.jsonl",
        "translation/test/en2sw.jsonl",
        "ner/test/zu.jsonl",
        "ner/test/sw.jsonl",
    ]


def test_further_attributes_become_kinds_and_tags(folder):
    train = [
        {"task": "ner", "languages": ["sw", "yo"], "family": {"sw": "bantu", "yo": "volta"}, "domain": "news"}
    ]
    evaluate = [
        {"task": "ner", "languages": ["sw"], "family": "bantu"},
        {"task": "ner", "languages": ["yo"], "family": "bantu", "domain": "news"},
        {"task": "ner", "languages": ["am"], "family": "semitic", "domain": "news"},
        {"task": "translation", "languages": ["sw"], "domain": "web"},
    ]
    mixture = Mixture.resolve(config(train=train, evaluate=evaluate), Layout(folder))
    assert mixture.train[1].attributes == {
        "task": "ner", "language": "yo", "shared": "all", "family": "volta", "domain": "news",
    }  # fmt: skip
    assert [one.seen for one in mixture.evaluate] == [
        "seen",  # says nothing of the domain
        "unseen_combination",  # trained on as volta
        "unseen_language",  # before family: the first kind with something new
        "unseen_task",
    ]
    train[0]["languages"].append("am")
    write_dataset(folder, "ner", "am", 2)
    with pytest.raises(UserError, match=r"train\[0\]\.family: says nothing for 'am'"):
        Mixture.resolve(config(train=train), Layout(folder))


def test_unseen_value_of_a_further_kind(folder):
    train = [{"task": "ner", "languages": ["sw"], "domain": "news"}, {"task": "ner", "languages": ["yo"]}]
    evaluate = [*train[:1], {"task": "ner", "languages": ["yo"], "domain": "web"}]
    mixture = Mixture.resolve(config(train=train, evaluate=evaluate), Layout(folder))
    assert [one.seen for one in mixture.evaluate] == ["seen", "unseen_domain"]


KINDS = st.fixed_dictionaries(
    {
        "task": st.sampled_from(["ner", "translation", "qa_in_lang"]),
        "language": st.sampled_from("am bn sw yo".split()),
    },
    optional={kind: st.sampled_from("xyz") for kind in ("family", "script")},
)
DATASETS = st.lists(KINDS, min_size=1, max_size=6, unique_by=lambda one: (one["task"], one["language"]))


@given(train=DATASETS, evaluate=DATASETS)
def test_tags_follow_from_the_training_list(train, evaluate):
    """Held against the definition, dataset by dataset (paper §3.2)."""

    def entries(datasets):
        return [
            {**{k: v for k, v in one.items() if k != "language"}, "languages": [one["language"]]}
            for one in datasets
        ]

    selected = (train[0]["task"], train[0]["language"])  # a checkpoint is selected by it
    evaluate = [train[0], *(one for one in evaluate if (one["task"], one["language"]) != selected)]
    cfg = config(train=entries(train), evaluate=entries(evaluate), report=[train[0]["task"]])
    for dataset, attributes in zip(Mixture.resolve(cfg, None).evaluate, evaluate, strict=True):
        kinds = dict.fromkeys(["task", "language", *attributes])
        new = [kind for kind in kinds if attributes[kind] not in [one.get(kind) for one in train]]
        if any(attributes.items() <= one.items() for one in train):
            assert dataset.seen == "seen"
        elif new:
            assert dataset.seen == f"unseen_{new[0]}"
        else:
            assert dataset.seen == "unseen_combination"


def test_thousands_of_languages_resolve_in_no_time():
    """Twice the datasets take about twice the time: each is tagged by itself."""
    codes = sorted(Locale("en").languages)[:600]
    tasks = ["ner", "translation", "qa_in_lang", "qa_cross_lang", "semantic_parsing"]
    entries = [{"task": task, "languages": codes} for task in tasks]
    began = time.process_time()
    mixture = Mixture.resolve(config(train=entries, evaluate=entries), None)
    assert len(mixture.evaluate) == 3000
    assert time.process_time() - began < 1


def test_lines_can_carry_a_kind(folder):
    write_split(
        folder, "ner", "train", "sw",
        [line_of("ner", "a", "", domain=domain) for domain in ("news", "web", "news")],
    )  # fmt: skip
    train = [{"task": "ner", "languages": ["yo"], "domain": "faith"}, {"task": "ner", "languages": ["sw"]}]
    mixture = Mixture.resolve(config(train=train), Layout(folder))
    trained = mixture.trained_attributes(Layout(folder), ["task", "domain"])
    assert [(one["language"], one["domain"], one["shared"]) for one in trained] == [
        ("yo", "faith", "all"),
        ("sw", "news", "all"),
        ("sw", "web", "all"),
    ]
    assert len(mixture.trained_attributes(Layout(folder), ["task", "language"])) == 2
    with pytest.raises(UserError, match=r"'script'.*ner/yo .*task, language, shared, domain.*ner/yo/train/1"):
        mixture.trained_attributes(Layout(folder), ["script"])


def test_missing_data_is_one_error_that_lists_all_of_it(folder):
    cfg = config(
        train=[
            {"task": "ner", "languages": ["sw", "ha", "ig"]},
            {"task": "translation", "languages": ["zu"]},
        ],
        evaluate=[{"task": "ner", "languages": ["sw", "ha", "rw"]}],
    )
    with pytest.raises(UserError) as caught:
        Mixture.resolve(cfg, Layout(folder))
    message = str(caught.value)
    assert "6 files" in message
    for part in (
        "ner/train (ha ig)",
        "translation/train (en2zu)",
        "ner/validation (ha)",
        "ner/test (ha rw)",
        "data.allow_missing=true",
    ):
        assert part in message
    assert "\n" not in message


def test_allow_missing_goes_on_without_and_says_so_once(folder, caplog):
    (folder / "ner/train/yo.jsonl").unlink()
    (folder / "ner/test/zu.jsonl").unlink()
    cfg = config(evaluate=[{"task": "ner", "languages": ["sw", "yo", "zu"]}])
    with caplog.at_level(logging.WARNING):
        mixture = Mixture.resolve(cfg, Layout(folder), allow_missing=True)
    assert named(mixture.train) == [("ner", "sw"), ("translation", "sw"), ("translation", "am")]
    # yo is not trained on any more, and so is tagged by what is.
    assert [(one.language, one.seen) for one in mixture.evaluate] == [
        ("sw", "seen"),
        ("yo", "unseen_language"),
    ]
    missing, unused = (record.getMessage() for record in caplog.records)
    assert "ner/train (yo); ner/test (zu)" in missing
    assert unused.endswith(f"1 files of {folder} are not used: ner/test (am)")


def entry(**changes):
    return [{"task": "ner", "languages": ["sw"], **changes}]


@pytest.mark.parametrize("allow_missing", [False, True])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": entry(task="nre")}, r"unknown task 'nre'.*'ner'"),
        ({"evaluate": entry(task="summaries")}, r"unknown task 'summaries'.*translation"),
        ({"report": ["nerr"]}, r"unknown task 'nerr'"),
        ({"evaluate": entry(languages=["../x"])}, r"evaluate\[0\]\.languages: '../x' is no language code"),
        ({"train": entry(languages=[False])}, r'reads an unquoted no as false; write "no" in quotes'),
        ({"train": entry(languages=[3])}, r"3 is not a string"),
        ({"train": entry(languages=[True])}, r'reads an unquoted yes as true; write "yes" in quotes'),
        (
            {"train": entry(languages=["no"], script={False: "a"})},
            r"train\[0\]\.script: .*an unquoted no as false",
        ),
        ({"train": entry(script=False)}, r"train\[0\]\.script: .*an unquoted no as false"),
        ({"train": entry(script={"sw": False})}, r"train\[0\]\.script: .*an unquoted no as false"),
        ({"train": [{**entry()[0], False: "a"}]}, r"train\[0\]: .*an unquoted no as false"),
        ({"train": entry(script="\ud83d")}, r"train\[0\]\.script: '\\ud83d' holds half a surrogate pair"),
        ({"train": entry(languages="sw")}, r"'sw' is not a list"),
        ({"train": entry(languages=[])}, r"needs `task` and a list `languages`"),
        ({"train": [{"task": "ner", "langauges": ["sw"]}]}, r"needs `task` and a list `languages`"),
        ({"train": entry(language="sw")}, r"train\[0\]\.language"),
        ({"train": entry(domain=7)}, r"train\[0\]\.domain: 7 is not a string"),
        ({"train": entry() + entry()}, r"mixture\.train names datasets more than once: ner/sw"),
        ({"train": []}, r"mixture\.train is empty"),
        ({"train": [{"task": "ner", "languages": ["sw"], "a:b": "x"}]}, r"'a:b' is no name of a kind"),
        ({"train": None}, r"mixture\.train is null; a list"),
        ({"reports": ["ner"]}, r"mixture\.reports: no such key; did you mean 'report'"),
        ({"sampling": {"temprature": 1}}, r"mixture\.sampling\.temprature: no such key"),
        ({"sampling": {"temperature": 0}}, r"temperature is 0"),
        ({"sampling": {"temperature": math.nan}}, r"temperature is nan"),
        ({"sampling": {"cap": 0.5}}, r"cap is 0\.5"),
        ({"report": ["translation"]}, r"no dataset of the tasks in report \(translation\) is both"),
    ],
)
def test_bad_mixtures_are_errors_whatever_is_allowed_to_be_missing(folder, changes, message, allow_missing):
    with pytest.raises(UserError, match=message):
        Mixture.resolve(config(**changes), Layout(folder), allow_missing)


def test_nothing_left_to_train_on(folder):
    cfg = config(train=[{"task": "ner", "languages": ["ha"]}])
    with pytest.raises(NothingThere, match="holds none of its training data"):
        Mixture.resolve(cfg, Layout(folder), allow_missing=True)


def test_nothing_left_to_select_by(folder):
    (folder / "ner/validation/sw.jsonl").unlink()
    with pytest.raises(NothingThere, match="no checkpoint can be selected"):
        Mixture.resolve(config(), Layout(folder), allow_missing=True)


def touch_all(root, cfg):
    """Every file that a mixture may want, empty: resolving only asks whether they are there."""
    for item in [*cfg.train, *cfg.evaluate]:
        for language in item.languages:
            for split in ("train", "validation", "test"):
                write_split(root, item.task, split, language, [])


def shipped(name, tmp_path, **parameters):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        given = [f"mixture.{key}={value}" for key, value in parameters.items()]
        cfg = hydra.compose(overrides=[f"+mixture={name}", *given]).mixture
    touch_all(tmp_path, cfg)
    return Mixture.resolve(cfg, Layout(tmp_path))


def count_by_task(datasets):
    counts = {}
    for dataset in datasets:
        counts[dataset.task] = counts.get(dataset.task, 0) + 1
    return counts


def total_rank(mixture):
    """Of FLix with rank 4 a task and 2 a language: what design says param-matched LoRA has."""
    tasks = {dataset.task for dataset in mixture.train}
    languages = {dataset.language for dataset in mixture.train}
    return mixture.ranks["task"] * len(tasks) + mixture.ranks["language"] * len(languages)


def tagged(mixture, seen, task):
    return {one.language for one in mixture.evaluate if (one.seen, one.task) == (seen, task)}


#: What each mixture trains, copied from the paper's Appendix B (B.1, B.2, B.3.1, B.4.1).
_SEMANTIC_PARSING = """am, be, bn, fi, ha, hu, ja, pt_br, ru, sw, ta, tr, yo, zu, de_localized, en, de, es,
    fr, hi, th"""
_QA_IN_LANG = "ar, bn, fi, id, ko, ru, sw, te, en"
_QA_CROSS_LANG = """ar, bn, fi, ko, ru, te, as, bho, brx, gbm, gom, gu, hi, hne, kn, mai, ml, mni, mr, mwr,
    or, pa, ps, sa, ta, ur"""
_NER = "am, bm, bbj, ee, ha, ig, rw, lg, luo, mos, ny, pcm, sn, sw, tn, tw, wo, xh, yo, zu"
APPENDIX_B = {
    "multilingual_semantic_parsing": {"semantic_parsing": _SEMANTIC_PARSING},
    "multilingual_qa_in_lang": {"qa_in_lang": _QA_IN_LANG},
    "multilingual_qa_cross_lang": {"qa_cross_lang": _QA_CROSS_LANG},
    "multilingual_ner": {"ner": _NER},
    "multitask_sw": {"semantic_parsing": "sw", "ner": "sw", "qa_in_lang": "sw"},
    "multitask_bn": {"semantic_parsing": "bn", "qa_in_lang": "bn", "qa_cross_lang": "bn"},
    "joint": {
        "semantic_parsing": _SEMANTIC_PARSING,
        "qa_in_lang": _QA_IN_LANG,
        "qa_cross_lang": "ar, bn, fi, ko, ru, te",
        "ner": _NER,
        "translation": """id, es, hi, yo, ja, lg, ny, ru, be, ar, de, bn, fr, tr, ig, th, fi, zu, te, ko, sw,
            xh, hu, ha, sn, ta, am""",
    },
    "semantic_parsing_holdout": {
        "semantic_parsing": "fi, hu, ja, pt_br, ru, tr, de_localized, en, de, es, fr, hi",
        "qa_in_lang": _QA_IN_LANG,
        "qa_cross_lang": _QA_CROSS_LANG,
        "ner": _NER,
        "translation": """de, mni, mr, ig, id, mwr, ko, fi, ta, bn, ar, es, ja, zu, be, gbm, tr, as, bho, yo,
            ml, sw, hi, am, bbj, lg, pcm, ny, tw, hu, luo, rw, brx, pt_br, gu, or, gom, te, sn, wo, fr, ps,
            ha, hne, xh, en, sa, tn, de_localized, ur, bm, ee, th, ru, pa, kn, mai, mos""",
    },
}
#: What they evaluate beside what they train: (how, task) -> languages (B.4.2, B.4.3, B.4.4).
ZERO_SHOT = {
    "joint": {
        ("unseen_combination", "qa_cross_lang"): "hi, ta",
        ("unseen_language", "qa_cross_lang"): (
            "bho, brx, gbm, gom, hne, mai, mni, mr, mwr, sa, as, gu, kn, ml, or, pa, ps, ur"
        ),
    },
    "semantic_parsing_holdout": {
        ("unseen_combination", "semantic_parsing"): "am, be, bn, ha, sw, ta, yo, zu, th",
    },
}


def listed(codes):
    return [code.strip() for code in codes.split(",")]


@pytest.mark.parametrize("name", APPENDIX_B)
def test_mixtures_are_appendix_b(name, tmp_path):
    """On data that holds all that they name, each trains and evaluates the paper's lists."""
    mixture = shipped(name, tmp_path)
    trained = [(task, code) for task, codes in APPENDIX_B[name].items() for code in listed(codes)]
    assert mixture.name == name
    assert sorted(named(mixture.train)) == sorted(trained)
    # Translation is trained only; the held-out mixture is there for semantic parsing alone.
    reported = ["semantic_parsing"] if name == "semantic_parsing_holdout" else list(APPENDIX_B[name])
    seen = {one for one in trained if one[0] in reported and one[0] != "translation"}
    zero_shot = ZERO_SHOT.get(name, {})
    assert {(one.task, one.language) for one in mixture.evaluate if one.seen == "seen"} == seen
    assert set(named(mixture.datasets("validation").values())) == seen
    for (how, task), codes in zero_shot.items():
        assert sorted(code for code in tagged(mixture, how, task)) == sorted(listed(codes))
    assert len(mixture.evaluate) == len(seen) + sum(len(listed(codes)) for codes in zero_shot.values())
    multitask = name.startswith("multitask")
    assert mixture.ranks == ({"task": 2, "language": 4} if multitask else {"task": 4, "language": 2})


@pytest.mark.parametrize(("task", "language"), [("ner", "sw"), ("qa_cross_lang", "or")])
def test_a_single_dataset_is_written_once(task, language, tmp_path):
    mixture = shipped("single_dataset", tmp_path, task=task, language=language)
    assert mixture.name == f"single_{task}_{language}"
    assert named(mixture.train) == named(mixture.evaluate) == [(task, language)]
    assert (mixture.evaluate[0].seen, mixture.report) == ("seen", [task])


def test_joint_mixture_is_appendix_b3(tmp_path):
    mixture = shipped("joint", tmp_path)
    assert count_by_task(mixture.train) == {
        "semantic_parsing": 21, "qa_in_lang": 9, "qa_cross_lang": 6, "ner": 20, "translation": 27,
    }  # fmt: skip
    assert total_rank(mixture) == 100
    assert tagged(mixture, "unseen_combination", "qa_cross_lang") == {"hi", "ta"}
    assert " ".join(sorted(tagged(mixture, "unseen_language", "qa_cross_lang"))) == (
        "as bho brx gbm gom gu hne kn mai ml mni mr mwr or pa ps sa ur"
    )
    assert set(mixture.report) == {"ner", "semantic_parsing", "qa_in_lang", "qa_cross_lang"}
    trained = {(one.task, one.language) for one in mixture.train if one.task != "translation"}
    assert set(named(mixture.datasets("validation").values())) == trained
    assert len(mixture.evaluate) == len(trained) + 2 + 18


def test_holdout_mixture_is_appendix_b4(tmp_path):
    mixture = shipped("semantic_parsing_holdout", tmp_path)
    assert count_by_task(mixture.train) == {
        "semantic_parsing": 12, "qa_in_lang": 9, "qa_cross_lang": 26, "ner": 20, "translation": 58,
    }  # fmt: skip
    assert total_rank(mixture) == 136
    held_out = tagged(mixture, "unseen_combination", "semantic_parsing")
    assert " ".join(sorted(held_out)) == "am be bn ha sw ta th yo zu"
    assert len(mixture.datasets("validation")) == 12
    assert len(mixture.evaluate) == 12 + 9
    translated = {one.language for one in mixture.train if one.task == "translation"}
    # Translation is of the languages that the other four have, and of those that are held out.
    others = {one.language for one in [*mixture.train, *mixture.evaluate] if one.task != "translation"}
    assert translated == others


@pytest.mark.parametrize(
    ("name", "task", "seen", "table"),
    [
        ("joint", "qa_cross_lang", "seen", 32),
        ("joint", "qa_in_lang", "seen", 35),
        ("joint", "semantic_parsing", "seen", 38),
        ("joint", "ner", "seen", 41),
        ("joint", "qa_cross_lang", "unseen_combination", 44),
        ("joint", "qa_cross_lang", "unseen_language", 50),
        ("semantic_parsing_holdout", "semantic_parsing", "unseen_combination", 47),
        ("multilingual_qa_cross_lang", "qa_cross_lang", "seen", 9),
        ("multilingual_qa_in_lang", "qa_in_lang", "seen", 13),
        ("multilingual_semantic_parsing", "semantic_parsing", "seen", 17),
        ("multilingual_ner", "ner", "seen", 21),
    ],
)
def test_evaluated_languages_are_the_rows_of_the_papers_tables(tmp_path, name, task, seen, table):
    assert tagged(shipped(name, tmp_path), seen, task) == paper.table(table).lines.keys() - {"average"}


def test_smaller_joint_mixtures_are_the_joint_one_on_some_of_its_languages(tmp_path):
    joint, smaller = shipped("joint", tmp_path), set()
    for size in (5, 10, 20):
        mixture = shipped(f"joint_{size}", tmp_path)
        languages = {one.language for one in mixture.train}
        assert len(languages) == size
        assert smaller < languages
        assert named(mixture.train) == [one for one in named(joint.train) if one[1] in languages]
        # At every size each task is there, and what is trained is evaluated: but translation, as ever.
        assert set(mixture.report) == {task for task, _ in named(mixture.evaluate)} == set(joint.report)
        trained = {one for one in named(mixture.train) if one[0] != "translation"}
        assert set(named(mixture.evaluate)) == trained
        smaller = languages


LISTS = sorted({path.stem for path in CONF.glob("mixture/[a-z]*.yaml")} - {"all"})


@pytest.mark.parametrize("name", LISTS)
def test_every_shipped_mixture_names_known_tasks_and_languages(name, tmp_path):
    parameters = {"task": "ner", "language": "sw"} if name == "single_dataset" else {}
    mixture = shipped(name, tmp_path, **parameters)
    assert mixture.train
    assert all(find_name(one.language) for one in (*mixture.train, *mixture.evaluate))
