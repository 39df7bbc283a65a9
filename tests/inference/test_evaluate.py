import json
import shutil
import tarfile
from functools import partial

import pytest
from folders import line_of, write_split
from omegaconf import OmegaConf
from tiny_data import SEEN, UNSEEN
from tiny_runs import checkpoint, json_lines, rows

import commands
from flix_lightning.inference import evaluate as evaluation
from flix_lightning.inference import predictor as predict
from flix_lightning.inference.evaluate import evaluate
from flix_lightning.runs import rows as results

SCORED = ("task", "language", "seen", "metric", "value", "n", "step", "split", "active")


def facts(found):
    return sorted(tuple(row[key] for key in SCORED) for row in found)


def submitted(folder, data, task, language):
    """Predictions and targets as XTREME-UP's scorer reads them: its own two loops over lines, in short."""
    name = f"en2{language}" if task == "translation" else language
    read = [
        [json.loads(line)[key] for line in (root / task / "test" / f"{name}.jsonl").open() if line.strip()]
        for root, key in ((folder / "predictions", "prediction"), (data, "target"))
    ]
    assert len(read[0]) == len(read[1])
    return read


def sequence_accuracy(predictions, targets):
    return 100 * sum(map(str.__eq__, predictions, targets)) / len(targets)


compose = partial(commands.compose, "evaluate")


def test_on_its_own_data_a_run_scores_what_it_tested(done, data, tmp_path):
    ran = commands.run(tmp_path, "evaluate.py", f"run={done}")
    (folder,) = (tmp_path / f"outputs/evaluations/{done.name}").iterdir()
    assert facts(rows(folder)) == facts(rows(done, split="test", active="all"))
    assert {row["run"] for row in rows(folder)} == {done.name.rpartition("-")[2]}
    for task, language in [*SEEN, *UNSEEN]:
        predictions, targets = submitted(folder, data, task, language)
        test = json_lines(done / f"predictions/test-all/{task}/{language}.jsonl")
        assert predictions == [line["prediction"] for line in test]
        assert targets == [line["target"] for line in test]
    assert "never trained, so dropped: language:zu (4)" in ran.out
    for words in (["zu", "unseen language", "4"], ["yo", "unseen combination", "4"]):
        assert [line for line in ran.out.splitlines() if all(word in line for word in words)]
    assert "ner: span f1" in ran.out
    assert ran.out.count("Unseen is zero-shot") == 2
    assert (folder / "scores.md").read_text().count("| average |") == 4
    # A second call has nothing left to do.
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
    again = commands.run(tmp_path, "evaluate.py", f"run={done}")
    assert again.out in ran.out
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_validation_sets_are_scored_after_the_choice_unseen_ones_too(done, data, tmp_path):
    """The paper's Tables 42-50 have a validation column of datasets that no choice may see."""
    folder = evaluate(compose(f"run={done}", f"output={tmp_path}", "split=validation"))
    ours = {(row["task"], row["language"]): row for row in rows(folder)}
    assert {name: row["seen"] for name, row in ours.items() if row["seen"] != "seen"} == UNSEEN
    tested = {row["task"]: row["step"] for row in rows(done, split="test")}
    for row in rows(done, split="validation"):
        if row["step"] == tested[row["task"]]:
            assert row["value"] == ours[row["task"], row["language"]]["value"]
    assert {row["split"] for row in ours.values()} == {"validation"}
    assert (folder / "predictions/ner/validation/zu.jsonl").exists()
    assert folder != evaluate(compose(f"run={done}", f"output={tmp_path}"))


@pytest.fixture
def other(done, tmp_path):
    """Data of another task, of another language, and of a trained dataset with a right answer and a wrong."""
    (answer,) = predict.Predictor(done).predict(
        [{"task": "semantic_parsing", "language": "sw", "text": "right"}]
    )
    lines = {
        ("translation", "sw"): [("a", "b"), ("", "")],
        ("ner", "am"): [("xxx\u2028", "PER: a"), ("x", ""), ("xx", "PER: b")],
        ("semantic_parsing", "sw"): [("wrong", "no answer"), ("right", answer)],
    }
    for (task, language), pairs in lines.items():
        write_split(tmp_path / "other", task, "test", language, [line_of(task, *pair) for pair in pairs])
    return tmp_path / "other"


def test_data_of_ones_own_in_an_archive(done, other, tmp_path, caplog):
    with tarfile.open(tmp_path / "mine.tgz", "w:gz") as tar:
        tar.add(other, "mine")
    folder = evaluate(compose(f"run={done}", f"data.root={tmp_path}/mine.tgz", f"output={tmp_path}"))
    found = {(row.task, row.language): row for row in results.read(folder / "results.jsonl")}
    assert {key: row.seen for key, row in found.items()} == {
        ("ner", "am"): "unseen_language",
        ("translation", "sw"): "unseen_task",
        ("semantic_parsing", "sw"): "seen",
    }
    said = [record.getMessage() for record in caplog.records]
    assert any("no checkpoint was selected for translation, so the last is taken" in one for one in said)
    assert any("never trained" in one and "task:translation" in one for one in said)
    for key, name in ((("ner", "am"), "best-ner"), (("translation", "sw"), "last")):
        assert found[key].step == checkpoint(done, name)["global_step"]
    for key in found:
        submitted(folder, other, *key)
    predictions, targets = submitted(folder, other, "semantic_parsing", "sw")
    assert found["semantic_parsing", "sw"].value == sequence_accuracy(predictions, targets) == 50.0


def test_finished_datasets_are_not_done_again(done, other, tmp_path, monkeypatch):
    cfg = compose(f"run={done}", f"data.root={other}", f"output={tmp_path}")
    whole = evaluate(compose(f"run={done}", f"data.root={other}", f"output={tmp_path}/whole"))
    score, asked = evaluation._Evaluation._score, []

    def score_or_stop(self, dataset, bar):
        asked.append(dataset.task)
        if len(asked) == 2:
            raise KeyboardInterrupt
        score(self, dataset, bar)

    monkeypatch.setattr(evaluation._Evaluation, "_score", score_or_stop)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        evaluate(cfg)
    (begun,) = (tmp_path / "evaluations").glob("*/*")
    assert not (begun / "results.jsonl").exists()
    assert len(list((begun / "predictions").rglob("*.jsonl"))) == 1
    folder = evaluate(cfg)
    assert folder == begun
    assert asked == ["ner", "semantic_parsing", "semantic_parsing", "translation"]
    for path in whole.rglob("*.jsonl"):
        assert (begun / path.relative_to(whole)).read_bytes() == path.read_bytes()


def test_new_data_is_another_evaluation(done, other, tmp_path):
    cfg = compose(f"run={done}", f"data.root={other}", f"output={tmp_path}")
    before = evaluate(cfg)
    kept = {path: path.read_bytes() for path in before.rglob("*") if path.is_file()}
    write_split(other, "ner", "test", "yo", [line_of("ner", "x", "")])
    after = evaluate(cfg)
    assert after != before
    assert {row.language for row in results.read(after / "results.jsonl") if row.task == "ner"} == {
        "am",
        "yo",
    }
    assert {path: path.read_bytes() for path in kept} == kept


def test_another_name_of_a_language_in_prompts_is_another_evaluation(done, other, tmp_path):
    given = [f"run={done}", f"data.root={other}", f"output={tmp_path}"]
    folders = {
        evaluate(compose(*given, *named))
        for named in ([], ["data.languages={am: Own}"], ["data.languages={am: Other}"])
    }
    assert len(folders) == 3


def test_data_that_cannot_be_made_again_is_a_warning(done, other, tmp_path, caplog):
    run = tmp_path / "run"
    shutil.copytree(done, run)
    cfg = OmegaConf.load(run / "config.yaml")
    cfg.data.allow_missing = True
    cfg.data.root = {"_target_": "flix_lightning.data.hub.ensure", "root": str(tmp_path), "sources": {}}
    OmegaConf.save(cfg, run / "config.yaml")
    evaluate(compose(f"run={run}", f"data.root={other}", f"output={tmp_path}"))
    assert any("sources is empty" in one.getMessage() for one in caplog.records)


@pytest.mark.parametrize(
    ("root", "seen", "said"),
    [(None, "unseen_language", "going on without 1 files"), ("gone", "seen", "counts as trained")],
)
def test_what_a_run_went_on_without_is_not_seen(done, tmp_path, caplog, root, seen, said):
    run = tmp_path / "run"
    shutil.copytree(done, run)
    cfg = OmegaConf.load(run / "config.yaml")
    cfg.data.allow_missing = True
    cfg.model.vocabulary = "data"
    cfg.data.root = root or cfg.data.root
    cfg.mixture.train.append({"task": "ner", "languages": ["am"]})
    OmegaConf.save(cfg, run / "config.yaml")
    write_split(tmp_path / "mine", "ner", "test", "am", [line_of("ner", "x", "")])
    folder = evaluate(compose(f"run={run}", f"data.root={tmp_path}/mine", f"output={tmp_path}"))
    assert [row.seen for row in results.read(folder / "results.jsonl")] == [seen]
    for words in (said, "model.vocabulary=data, and here it is all"):
        assert [record for record in caplog.records if words in record.getMessage()]


@pytest.mark.parametrize(
    ("arguments", "said"),
    {
        "no run": (["run=nowhere"], ["run=nowhere", "results.jsonl"]),
        "no data": (["data.root=nowhere"], ["nowhere", "no such folder or archive"]),
        "no test data": (["data.root=untested"], ["untested", "<task>/test/<language>.jsonl"]),
        "no language": (["data.root=unnamed"], ["ner/test/a#b.jsonl", "'a#b' is no language code"]),
        "a bad line": (["data.root=bad"], ["ner/test/yo.jsonl:2", "lacks the key 'target'"]),
        "no checkpoint": (["checkpoint=best-qa"], ["no best-qa", "best-ner", "last"]),
        "no number": (["batch_size=none"], ["batch_size is 'none'", "whole number from 1"]),
        "no accelerator": (["accelerator=abacus"], ["abacus", "cpu"]),
        "a misspelt key": (["data.rot=x"], ["data.rot", "did you mean 'data.root'"]),
    }.values(),
    ids=lambda value: None,
)
def test_a_mistake_is_one_line_and_leaves_nothing(done, tmp_path, arguments, said):
    write_split(tmp_path / "untested", "ner", "train", "sw", [line_of("ner", "x", "")])
    write_split(tmp_path / "unnamed", "ner", "test", "a#b", [line_of("ner", "x", "")])
    write_split(tmp_path / "bad", "ner", "test", "am", [line_of("ner", "x", "")])
    write_split(tmp_path / "bad", "ner", "test", "yo", [line_of("ner", "x", ""), {"text": "x"}])
    given = [f"run={done}", *arguments]
    given = given if not arguments[0].startswith("run=") else arguments
    ran = commands.run(tmp_path, "evaluate.py", *given, code=1)
    (line,) = [line for line in ran.err.splitlines() if "Loading weights" not in line and line]
    assert line.startswith("error: ")
    for text in said:
        assert text in line
    assert not list((tmp_path / "outputs").glob("evaluations/**/*.jsonl"))
