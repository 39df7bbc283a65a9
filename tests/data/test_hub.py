"""Data that the datasets library reads, from local folders of parquet, CSV and JSON lines."""

import csv
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor

import datasets
import pytest
from tiny_runs import config

from flix_lightning.common.errors import UserError
from flix_lightning.data import hub
from flix_lightning.data.layout import Layout
from flix_lightning.runs.run import Run

SPLITS = {"train": 4, "validation": 2, "test": 2}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Folders as people have them."""
    folder = tmp_path_factory.mktemp("sources")
    for split, count in SPLITS.items():
        for code in ("sw", "yo"):
            rows = [[f"{code} {split} {n}", "PER: A" if n else ""] for n in range(count)]
            path = folder / "csv" / code / f"{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([["sentence", "labels"], *rows])
        lines = [
            {"lang": code, "utterance": f"{code} {split} {n}", "target": n, "topic": "weather"}
            for n in range(count)
            for code in ("swh", "yor", "zul")
        ]
        (folder / "jsonl").mkdir(exist_ok=True)
        (folder / f"jsonl/{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    squad = datasets.Dataset.from_list(
        [
            {"question": "q", "context": f"c {n}", "answers": {"text": [f"a {n}", "b"]}, "kind": n % 2}
            for n in range(10)
        ]
    ).cast_column("kind", datasets.ClassLabel(names=["short", "long"]))
    (folder / "parquet").mkdir()
    squad.to_parquet(folder / "parquet/train.parquet")
    return folder


def spec(sources, task, **changed):
    """A source that is right, and what a test changes of it."""
    found = {
        "ner": {
            "path": str(sources / "csv/{language}"),
            "languages": ["sw", "yo"],
            "columns": {"text": "sentence", "target": "labels"},
        },
        "semantic_parsing": {
            "path": str(sources / "jsonl"),
            "language_column": "lang",
            "languages": {"sw": "swh", "yo": "yor"},
            "columns": {"input": "utterance", "topic": "topic"},
        },
        "qa_in_lang": {
            "path": "parquet",
            "data_files": {"train": str(sources / "parquet/*.parquet")},
            "languages": ["en"],
            "splits": {"train": "train[:6]", "validation": "train[6:8]", "test": "train[8:]"},
            "columns": {"title": None, "target": "answers.text.0", "domain": "kind"},
        },
    }[task]
    return {task: {**found, **changed}}


def read(folder, task, split, language):
    return [json.loads(line) for line in Layout(folder).path(task, split, language).read_text().splitlines()]


def test_csv_in_a_folder_for_each_language(sources, tmp_path):
    folder = hub.ensure(tmp_path, spec(sources, "ner"))
    for split, count in SPLITS.items():
        assert Layout(folder).datasets(split) == [("ner", "sw"), ("ner", "yo")]
        # A CSV has no empty text of its own: it is that of a sentence without entities.
        expected = [{"text": f"yo {split} {n}", "target": "PER: A" if n else ""} for n in range(count)]
        assert read(folder, "ner", split, "yo") == expected


def test_json_lines_with_a_column_of_languages(sources, tmp_path):
    folder = hub.ensure(tmp_path, spec(sources, "semantic_parsing"))
    assert Layout(folder).datasets("train") == [("semantic_parsing", "sw"), ("semantic_parsing", "yo")]
    assert read(folder, "semantic_parsing", "test", "sw") == [
        {"input": f"swh test {n}", "target": str(n), "topic": "weather"} for n in range(2)
    ]
    every = hub.ensure(tmp_path, spec(sources, "semantic_parsing", languages=None))
    assert [code for _, code in Layout(every).datasets("test")] == ["swh", "yor", "zul"]


def test_parquet_with_nested_columns_labels_and_parts_of_a_split(sources, tmp_path):
    folder = hub.ensure(tmp_path, spec(sources, "qa_in_lang"))
    assert [len(read(folder, "qa_in_lang", split, "en")) for split in SPLITS] == [6, 2, 2]
    assert read(folder, "qa_in_lang", "validation", "en")[1] == {
        "question": "q",
        "title": "",
        "context": "c 7",
        "target": "a 7",
        "domain": "long",
    }


def test_it_is_written_once_and_again_when_a_file_changes(sources, tmp_path, monkeypatch):
    both = spec(sources, "ner") | spec(sources, "qa_in_lang")
    calls = []
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: calls.append(1) or load(*a, **k))
    with ThreadPoolExecutor() as pool:
        folders = {*pool.map(lambda _: hub.ensure(tmp_path, both), range(3))}
    assert len(folders) == 1
    assert len(calls) == 2 + 4  # two languages; the parquet file, and three parts of it
    (folder,) = folders
    path = sources / "csv/sw/test.csv"
    before = path.read_text()
    try:
        stat = path.stat()
        path.write_text(before.replace("sw test 1", "sw test 9"))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        other = hub.ensure(tmp_path, both)
    finally:
        path.write_text(before)
    assert other != folder
    assert read(other, "ner", "test", "sw")[1]["text"] == "sw test 9"
    assert sorted(one.name for one in tmp_path.iterdir() if one.is_dir()) == sorted([folder.name, other.name])


@pytest.mark.parametrize("pattern", ["PLACE/**/*.csv", "PLACE/*/*.csv", ["PLACE/one/a.csv"]])
def test_a_changed_file_that_a_pattern_names_is_read_again(pattern, tmp_path):
    place = tmp_path / "mine"
    (place / "one").mkdir(parents=True)
    named = json.loads(json.dumps(pattern).replace("PLACE", str(place)))
    source = {"path": "csv", "data_files": {"test": named}, "languages": ["sw"]}
    found = []
    for text in ("a", "b"):
        (place / "one/a.csv").write_text(f"text,target\n{text},PER: A\n")
        folder = hub.ensure(tmp_path, {"ner": source})
        found += [line["text"] for line in read(folder, "ner", "test", "sw")]
    assert found == ["a", "b"]


TITLE = {"title": None}
MISTAKES = [
    ("ner", {"columns": {"text": "sentense"}}, "no column 'sentense' for 'text'; did you mean 'sentence'?"),
    ("ner", {"columns": {"text": "sentense"}}, "its columns are sentence, labels; "),
    ("ner", {"columns": {"text": "sentence"}}, "train of sw has no column 'target' for 'target'"),
    ("ner", {"splits": {"test": "tset"}}, "no split 'tset' for test; it has train, validation, test"),
    ("ner", {"splits": {"dev": "x"}}, "splits.dev: no such split; splits are train, validation, test"),
    ("ner", {"languages": ["sw", "ha"]}, "datasets cannot load it"),
    ("ner", {"languages": ["sw", "ha"]}, "csv/ha"),
    ("ner", {"languages": []}, "languages is []; a list of codes"),
    ("ner", {"languages": [False]}, '"no" in quotes'),
    ("ner", {"languages": ["../sw"]}, "'../sw' is no language code"),
    ("ner", {"languges": ["sw"]}, "ner.languges: no such key; did you mean 'languages'"),
    ("ner", {"path": None}, "ner.path is null"),
    (
        "qa_in_lang",
        {"columns": {**TITLE, "target": "answers.text"}},
        "row 1: column 'answers.text' is [\"a 0\",",
    ),
    ("qa_in_lang", {"columns": {**TITLE, "target": "answers.text"}}, "such as answers.text.0"),
    (
        "qa_in_lang",
        {"columns": {**TITLE, "target": "answers.txt.0"}},
        "'answers.txt.0' leads nowhere, at 'txt'",
    ),
    (
        "qa_in_lang",
        {"splits": None, "data_files": {"whole": "FILE"}},
        "none of train, validation, test, but whole",
    ),
    (
        "qa_in_lang",
        {"data_files": {"train": 5}},
        "data_files.train is 5; a path, or a list of paths, is needed",
    ),
    ("semantic_parsing", {"language_column": "language"}, "no column 'language' for 'language_column'"),
]


@pytest.mark.parametrize(("task", "changed", "said"), MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(task, changed, said, sources, tmp_path):
    changed = json.loads(json.dumps(changed).replace("FILE", str(sources / "parquet/train.parquet")))
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        hub.ensure(tmp_path, spec(sources, task, **changed))
    assert "\n" not in str(caught.value)
    assert f"data.root.sources.{task}" in str(caught.value)
    assert not [one for one in tmp_path.iterdir() if one.is_dir()]


def test_no_source_and_an_unknown_task(tmp_path):
    with pytest.raises(UserError, match=r"data\.root\.sources is empty"):
        hub.ensure(tmp_path, {})
    with pytest.raises(UserError, match="unknown task 'nre'"):
        hub.ensure(tmp_path, {"nre": {"path": "x"}})


def test_a_run_of_it(sources, tiny, tmp_path):
    others = [one for one in tiny if not one.startswith(("mixture.", "data"))]
    ner = f"{{path:'{sources}/csv/{{language}}',languages:[sw,yo],columns:{{text:sentence,target:labels}}}}"
    given = ["data=hub", f"+data.root.sources.ner={ner}", "mixture=all", f"output={tmp_path}"]
    run = Run.resolve(config([*others, *given]))
    assert [(one.task, one.language) for one in run.mixture.train] == [("ner", "sw"), ("ner", "yo")]
    assert run.layout.root.parent == tmp_path / "data"
