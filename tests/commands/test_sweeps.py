"""The sweeps of the paper's tables come to the runs that the paper says, and share them."""

from itertools import product
from pathlib import Path

import pytest
from folders import write_split
from swept import swept

from commands import REPOSITORY
from flix_lightning.cldr import benchmark
from flix_lightning.common import cli
from flix_lightning.reports import paper, sweeps
from flix_lightning.reports.columns import APPENDIX
from flix_lightning.runs.run import resolve_all

MULTILINGUAL = {f"multilingual_{task}" for task in ("ner", "semantic_parsing", "qa_in_lang", "qa_cross_lang")}
PAGE = REPOSITORY / "docs/runs-and-sweeps.md"
METHODS = {"FLix", "Compute-matched", "Param-matched"}

# The words of the captions of Tables 6 to 50.
METHOD = {"compute-matched": "Compute-matched", "parameter-matched": "Param-matched", "FLix": "FLix"}
TASK = {
    "cross-lingual QA": "qa_cross_lang",
    "in-language QA": "qa_in_lang",
    "semantic parsing": "semantic_parsing",
    "NER": "ner",
}
LANGUAGE = {"Swahili": "sw", "Bengali": "bn"}
ROW = {
    "SemParse": "semantic_parsing",
    "QA-InLang": "qa_in_lang",
    "QA-CrossLang": "qa_cross_lang",
    "NER": "ner",
}


def named(words, caption):
    (found,) = {value for word, value in words.items() if word in caption}
    return found


def of_caption(number):
    """(method, mixture) of each run behind one of Tables 6 to 50, by its caption and rows alone."""
    table = paper.table(number)
    caption, rows = table.caption, [row for row in table.lines if row != "average"]
    method = named(METHOD, caption)
    if caption.startswith("Single-language"):
        return {(method, f"single_{named(TASK, caption)}_{row}") for row in rows}
    if caption.startswith("Single-task"):
        return {(method, f"single_{ROW[row]}_{named(LANGUAGE, caption)}") for row in rows}
    if caption.startswith("Zero-shot") and "semantic parsing" in caption:
        return {(method, "semantic_parsing_holdout")}
    if caption.startswith(("Zero-shot", "Multitask multilingual")):
        return {(method, "joint")}
    if any(word in caption for word in LANGUAGE):
        return {(method, f"multitask_{named(LANGUAGE, caption)}")}
    return {(method, f"multilingual_{named(TASK, caption)}")}


def method_and_mixture(configs):
    return [(cfg.flix.name, cfg.mixture.name) for cfg in configs]


@pytest.mark.parametrize("number", range(6, 51))
def test_tables_of_the_appendix_sweep_what_their_captions_say(number):
    found = method_and_mixture(swept(f"table{number}"))
    assert set(found) == of_caption(number)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("number", range(6, 51))
def test_tables_of_the_appendix_show_what_their_captions_say(number):
    caption, (column, method) = paper.table(number).caption, APPENDIX[number]
    kind = [word for word in ("unseen combinations", "unseen languages") if word in caption]
    assert method == named(METHOD, caption)
    assert column.task == (None if number in range(22, 30) else named(TASK, caption))
    assert column.seen == ("".join(kind).removesuffix("s").replace(" ", "_") or "seen")
    mixtures = {mixture for _, mixture in of_caption(number)}
    assert mixtures == {column.mixture} or caption.startswith("Single-")


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        (
            "table2",
            {(one, mix) for one in METHODS for mix in {*MULTILINGUAL, "multitask_sw", "multitask_bn"}},
        ),
        ("table5", {(one, "joint") for one in ("FLix", "FLix-shared", "Compute-matched")}),
        ("figure2", {(one, mix) for one in METHODS for mix in {*MULTILINGUAL, "joint"}}),
    ],
)
def test_tables_sweep_methods_and_mixtures(sweep, expected):
    found = method_and_mixture(swept(sweep))
    assert set(found) == expected
    assert len(found) == len(expected)


def test_table4_sweeps_the_rank_of_languages():
    found = {
        (cfg.flix.name, cfg.mixture.name, cfg.flix.ranks.task, cfg.flix.ranks.language)
        for cfg in swept("table4")
    }
    assert found == {("FLix", mixture, 4, rank) for mixture in MULTILINGUAL for rank in (1, 2)}


def test_the_shared_feature_is_always_on_and_ranks_are_those_of_appendix_a():
    flix, shared = (
        next(cfg.flix for cfg in swept("table5") if cfg.flix.name == name) for name in ("FLix", "FLix-shared")
    )
    assert shared.ranks == {"shared": 4, "task": 1, "language": 1}
    # What is dropped otherwise is dropped as in FLix, or the two would differ in more than the feature.
    assert shared.dropout == {"shared": 0, **flix.dropout}
    assert shared.rescale == flix.rescale
    assert shared.learning_rate == flix.learning_rate


def test_every_table_and_figure_is_a_sweep_of_its_own_name():
    for name in sweeps.PAPER:
        assert {tuple(cfg.tables) for cfg in swept(name)} == {(name,)}


# -- on data that holds all that the paper trains and evaluates


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Sweep -> the folders of its runs; every file of Appendix B is there, empty."""
    folder = tmp_path_factory.mktemp("complete")
    configs = {name: swept(name) for name in sweeps.PAPER}
    wanted = {
        (entry.task, code)
        for cfgs in configs.values()
        for cfg in cfgs
        for entry in [*cfg.mixture.train, *cfg.mixture.evaluate]
        for code in entry.languages
    }
    for task, code in wanted:
        for split in ("train", "validation", "test"):
            write_split(folder, task, split, code, [])
    found = {}
    for name, cfgs in configs.items():
        copies = [cfg.copy() for cfg in cfgs]
        for cfg in copies:
            cfg.data.root, cfg.data.allow_missing = str(folder), False
        plans, left_out = resolve_all(copies)
        assert not left_out
        found[name] = {plan.path for plan in plans}
        assert len(found[name]) == len(cfgs)
    return found


def test_the_paper_is_a_hundred_and_some_runs_a_seed(runs):
    everything = set().union(*runs.values())
    dropouts, ranks = runs["table3"] - runs["table2"], runs["table4"] - runs["table2"]
    # FLix's own dropout may be one of Table 3's four; of Table 4's two ranks, one is Table 2's.
    assert (len(runs["table3"]), len(ranks)) == (4, 4)
    assert len(dropouts) in (3, 4)
    # Joint and held-out, Table 2, then what only Tables 3, 4 and 5 have, then single datasets.
    assert len(everything) == 6 + 18 + len(dropouts) + 4 + 1 + (21 + 9 + 26 + 20)
    # What the page says of them; the built-in benchmark lacks single datasets.
    lacking = sum(len(benchmark.missing_languages(task)) for task in TASK.values())
    assert f"| {len(everything)}; {len(everything) - lacking} on the built-in" in PAGE.read_text()


def test_runs_are_shared(runs):
    assert runs["figure2"] < runs["table1"] | runs["table2"]
    assert len(runs["table5"] - runs["table1"]) == 1
    single = {6, 10, 14, 18, 22, 26}
    for number in {*range(6, 51)} - single:
        assert runs[f"table{number}"] < (runs["table2"] if number < 30 else runs["table1"])
    alone = [runs[f"table{number}"] for number in (6, 10, 14, 18)]
    assert len(set().union(*alone)) == sum(map(len, alone)) == 76
    assert runs["table22"] | runs["table26"] < set().union(*alone)


def test_a_mixture_that_data_holds_nothing_of_is_left_out_where_data_may_be_missing(tmp_path):
    for split in ("train", "validation", "test"):
        write_split(Path(tmp_path), "ner", split, "sw", [])
    cfgs = [cfg.copy() for cfg in swept("table22")]
    for cfg in cfgs:
        cfg.data.root, cfg.data.allow_missing = str(tmp_path), True
    plans, left_out = resolve_all(cfgs)
    assert [plan.mixture.name for plan in plans] == ["single_ner_sw"]
    assert left_out == ["single_semantic_parsing_sw", "single_qa_in_lang_sw"]


def test_a_jobs_config_is_the_one_that_is_composed_for_it_alone():
    """Jobs share what they choose from conf/, and each sets its values on a copy."""
    fixed = ["optimizer.learning_rate=3e-3", "+trainer.deterministic=true", "seed=1"]
    jobs = cli.sweep_configs(["mixture=joint_5,joint_10", "flix.dropout=0.0,0.3", *fixed])
    choices = product(("joint_5", "joint_10"), ("0.0", "0.3"))
    alone = [
        cli.sweep_configs([f"mixture={mixture}", f"flix.dropout={rate}", *fixed]) for mixture, rate in choices
    ]
    assert [[job] for job in jobs] == alone
