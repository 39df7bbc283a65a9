"""The whole archive of real data in XTREME-UP's layout, which stands beside the checkout."""

import re
from collections import Counter
from itertools import islice

import pytest
from tiny_runs import config, do, rows

import commands
from flix_lightning.common import cli
from flix_lightning.common.errors import UserError
from flix_lightning.data.archive import open_layout
from flix_lightning.data.layout import Layout
from flix_lightning.runs.run import Run
from flix_lightning.tasks.definitions import PAPER_TASKS, shipped_tasks
from flix_lightning.tasks.metrics import score_texts

LITE = commands.REPOSITORY.parent / "shared/data/xtreme-up-lite.tgz"

#: Files of each task, and lines: counted in the archive with find and wc.
FILES = {"ner": 60, "translation": 123, "qa_in_lang": 36, "qa_cross_lang": 47, "semantic_parsing": 51}
LINES = {
    "ner": 60_465, "translation": 57_400, "qa_in_lang": 14_100, "qa_cross_lang": 15_579,
    "semantic_parsing": 23_717,
}  # fmt: skip


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    if not LITE.is_file():
        pytest.skip(f"{LITE} is not there: the archive of real data stands beside the checkout")
    return open_layout(LITE, tmp_path_factory.mktemp("lite"))


def language_of(path):
    return path.stem.removeprefix("en2") if path.parts[-3] == "translation" else path.stem


def test_every_line_of_every_file_reads(layout):
    files, lines = Counter(), Counter()
    for path in layout.root.rglob("*.jsonl"):
        task, split = path.parts[-3:-1]
        files[task] += 1
        lines[task] += sum(1 for _ in layout.read(task, split, language_of(path)))
    assert files == FILES
    assert lines == LINES


@pytest.mark.parametrize("task", PAPER_TASKS)
def test_gold_targets_score_100(layout, task):
    """On every test file: none of these holds what XTREME-UP's scorer gives less (its NER without any entity,
    its QA whose answer is an article or punctuation alone); of an NER entity with a colon it sees nothing."""
    scores = {}
    for path in sorted(layout.root.glob(f"{task}/test/*.jsonl")):
        gold = [example.target for example in layout.read(task, "test", language_of(path))]
        scores[path.stem] = score_texts(shipped_tasks()[task].metric, gold, gold)
    assert len(scores) >= 12
    assert scores == {name: pytest.approx(100, abs=1e-9) for name in scores}


def test_a_run_goes_on_without_what_is_missing_and_is_one_run_wherever_the_data_lies(layout, tmp_path):
    short = """data=xtreme_up mixture=multilingual_qa_in_lang data.max_input_length=64
        data.max_target_length=8 trainer.max_steps=4 trainer.batch_size=8 evaluation.test_cap=2
        evaluation.validation_cap=1 trainer.progress=lines logger=[csv]""".split()
    lacks = "qa_in_lang/train (bn fi id ko sw te); qa_in_lang/"
    refused = commands.run(tmp_path, "train.py", *short, f"data.root={LITE}", code=1)
    assert refused.err.splitlines()[-1].startswith("error: mixture 'multilingual_qa_in_lang' names 18 files")
    assert lacks in refused.err
    ran = commands.run(tmp_path, "train.py", *short, f"data.root={LITE}", "data.allow_missing=true")
    assert "going on without 12 files" in ran.out + ran.err
    assert lacks in ran.out + ran.err
    (folder,) = (tmp_path / "outputs/runs").iterdir()
    tested = {(row["language"], row["n"]) for row in rows(folder, split="test", active="all")}
    assert tested == {("ar", 2), ("ru", 2), ("en", 2)}
    again = commands.run(tmp_path, "train.py", *short, f"data.root={layout.root}", "data.allow_missing=true")
    assert f"Skipped, finished already: {folder.relative_to(tmp_path)}" in again.out + again.err


def test_the_lite_mixture_is_whole_and_holds_out_what_it_says(layout, tmp_path):
    overrides = ["model=cldr", "trainer=cpu", f"data.root={layout.root}", f"output={tmp_path}"]
    plans = [Run.resolve(cfg) for cfg in cli.sweep_configs(["+sweeps=lite", *overrides])]
    assert [one.cfg.flix.name for one in plans] == ["FLix", "Compute-matched", "Param-matched"]
    mixture = plans[0].mixture
    unseen = {(one.task, one.seen, one.language) for one in mixture.evaluate if one.seen != "seen"}
    assert unseen == {
        ("qa_cross_lang", "unseen_combination", "sw"),
        *(("semantic_parsing", "unseen_combination", code) for code in ("am", "ha", "sw", "yo", "zu")),
        *(
            (task, "unseen_language", code)
            for task in ("qa_in_lang", "qa_cross_lang")
            for code in ("el", "vi")
        ),
    }
    trained = {(one.task, one.language) for one in mixture.train}
    there = {(path.parts[-3], language_of(path)) for path in layout.root.glob("*/train/*.jsonl")}
    assert trained == {(task, code) for task, code in there if code not in ("el", "vi")} - {
        ("semantic_parsing", code) for code in ("am", "ha", "sw", "yo", "zu")
    }


def test_the_short_mixture_has_no_long_contexts_and_translates_what_it_evaluates(tmp_path):
    overrides = ["model=cldr", "trainer=cpu", "data.root=nowhere", f"output={tmp_path}"]
    whole, short = (
        next(iter(cli.sweep_configs([f"+sweeps={name}", *overrides]))).mixture
        for name in ("lite", "lite_cpu")
    )
    train, evaluate, short_train, short_evaluate = (
        {(entry.task, code) for entry in entries for code in entry.languages if entry.task[:2] != "qa"}
        for mixture in (whole, short)
        for entries in (mixture.train, mixture.evaluate)
    )
    assert short_evaluate == {one for one in evaluate if one[0] != "translation"}
    evaluated = {code for _, code in short_evaluate}
    assert short_train == {one for one in train if one[0] != "translation" or one[1] in evaluated}


#: test_mixture_all.py tests `all`, which names no datasets.
MIXTURES = sorted({path.stem for path in (commands.REPOSITORY / "conf/mixture").glob("[!_]*.yaml")} - {"all"})


@pytest.fixture(scope="module")
def shortened(layout, tmp_path_factory):
    """The first four lines of every file."""
    folder = tmp_path_factory.mktemp("shortened")
    for path in layout.root.rglob("*.jsonl"):
        copy = folder / path.relative_to(layout.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as file:
            copy.write_bytes(b"".join(islice(file, 4)))
    return Layout(folder)


@pytest.mark.parametrize("mixture", MIXTURES)
def test_every_mixture_trains_on_what_there_is_and_says_what_is_not(
    mixture, shortened, base, tmp_path, caplog
):
    overrides = [
        *("data=xtreme_up", f"data.root={shortened.root}", "data.allow_missing=true", f"mixture={mixture}"),
        *("data.max_input_length=16", "data.max_target_length=4", f"model.pretrained={base}"),
        *("trainer.max_steps=4", "trainer.batch_size=4", "trainer.micro_batch_size=4", "logger=[csv]"),
        *("evaluation.validation_cap=1", "evaluation.test_cap=1", "flix.controls=[]"),
        *(["mixture.task=ner", "mixture.language=sw"] if mixture == "single_dataset" else []),
    ]
    named = config(overrides).mixture
    trained, evaluated = (
        {(one.task, code) for one in entries for code in one.languages}
        for entries in (named.train, named.evaluate)
    )
    lacking = {one for one in trained if not shortened.path(one[0], "train", one[1]).exists()}
    if lacking == trained:
        with pytest.raises(UserError, match=rf"^mixture '{mixture}': .* holds none of its training data$"):
            do(overrides, tmp_path)
        assert mixture == "multitask_bn"
        return
    folder = do(overrides, tmp_path)
    said = " ".join(record.getMessage() for record in caplog.records if "going on without" in record.msg)
    assert {
        (task, code.removeprefix("en2"))
        for task, codes in re.findall(r"(\w+)/train \((.*?)\)", said)
        for code in codes.split()
    } == lacking
    there = {one for one in evaluated if shortened.path(one[0], "test", one[1]).exists()}
    tested = {(row["task"], row["language"]) for row in rows(folder, split="test", active="all")}
    # Data of a split alone is not evaluated either: validation chooses the checkpoint.
    assert tested == {
        one for one in there if one not in trained or shortened.path(one[0], "validation", one[1]).exists()
    }
    assert {row["step"] for row in rows(folder, split="validation")} == {4}
