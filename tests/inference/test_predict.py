import io
import json
import os
import shutil
import sys
import time
import tracemalloc
from pathlib import Path
from threading import Thread

import pytest
import torch
from tiny_data import SEEN, UNSEEN
from tiny_runs import checkpoint, do, json_lines
from transformers import AutoModelForSeq2SeqLM, ByT5Tokenizer

import commands
from flix_lightning.adapter.reference import merge
from flix_lightning.common.errors import UserError
from flix_lightning.inference import predict as command
from flix_lightning.inference import predictor as predict

PARSING = "semantic_parsing"
PROMPTS = {PARSING: "parse {}: {}", "ner": "find entities in {}: {}"}
NAMES = {"sw": "Swahili", "en": "English", "yo": "Yoruba", "zu": "Zulu"}


@pytest.fixture(scope="module")
def run(done, tmp_path_factory):
    """A run whose checkpoints differ much; moved, and renamed."""
    folder = tmp_path_factory.mktemp("moved") / "run"
    shutil.copytree(done, folder)
    for seed, path in enumerate(sorted((folder / "checkpoints").iterdir())):
        state = torch.load(path, weights_only=True)
        generator = torch.Generator().manual_seed(seed)
        for key, pool in state["adapter"].items():
            if key.endswith(".B"):
                pool.normal_(generator=generator)
        torch.save(state, path)
    return folder


@pytest.fixture(scope="module")
def model(run):
    return predict.Predictor(run)


def alone(run, base, name, text, features):
    """What Transformers generates for one text with the features of a checkpoint merged into the base."""
    state = checkpoint(run, name)
    on = [one for one in features if one in state["ranks"]]
    whole = AutoModelForSeq2SeqLM.from_pretrained(base)
    merged = merge(whole, state["adapter"], state["ranks"], on).eval()
    inputs = ByT5Tokenizer()([text], return_tensors="pt")
    ids = merged.generate(**inputs, max_new_tokens=4, do_sample=False)[0]
    return ByT5Tokenizer().decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_a_true_precision_is_the_type_of_the_base(run, precision):
    model = predict.Predictor(run, accelerator="cpu", precision=precision)
    assert (model._generate.base.model.dtype == torch.bfloat16) is (precision == "bf16-true")
    assert len(model.predict([{"task": "ner", "language": "sw", "text": "x"}])) == 1


def test_lines_of_all_kinds_in_one_batch_are_answered_as_each_alone(run, model, base, caplog):
    text = "test xx"
    given = [
        ({"task": "ner", "language": "sw", "text": text}, "ner", "sw"),
        ({"task": PARSING, "language": "en", "input": text}, PARSING, "en"),  # its task's own key
        ({"task": PARSING, "language": "yo", "text": text}, PARSING, "yo"),  # text in the place of it
        ({"task": "ner", "language": "zu", "text": text, "id": 7}, "ner", "zu"),  # never trained
        (
            {"task": "ner", "language": "xxx", "text": text},
            "ner",
            "xxx",
        ),  # prompted by its code
        ({"language": "sw", "text": text}, None, "sw"),
        ({"text": text}, None, None),
        ({"task": "ner", "language": "sw", "prompt": "ready"}, "ner", "sw"),
    ]
    expected = []
    for line, task, language in given:
        read = line.get("prompt", text)
        if task and language and "prompt" not in line:
            read = PROMPTS[task].format(NAMES.get(language, language), text)
        features = [f"task:{task}", f"language:{language}"]
        expected.append(alone(run, base, f"best-{task}" if task else "last", read, features))
    assert len(set(expected)) > 5
    caplog.clear()
    assert model.predict([line for line, _, _ in given]) == expected
    assert [record.getMessage() for record in caplog.records] == [
        "of 8 texts, never trained, so dropped: language:zu (1), language:xxx (1)",
        "of 8 texts, without a feature of a kind that the run was trained with: task (2), language (1)",
        "of 8 texts, neither text nor feature of this run, so not used: id (1)",
        "of 8 texts, without a task and language to prompt by: 2",
    ]


def test_texts_with_lists_of_features(run, model, base):
    texts = ["a", "a", "bb", "c"]
    features = [["task:ner", "language:sw"], ("language:zu",), [], ["task:x/best-ner", "language:sw"]]
    names = ["best-ner", "last", "last", "last"]
    expected = [alone(run, base, *one) for one in zip(names, texts, features, strict=True)]
    assert model.generate(texts, features) == expected
    with pytest.raises(UserError, match="each of the 1 texts"):
        model.generate(["a"], ["task:ner"])
    with pytest.raises(UserError, match="each of the 4 texts"):
        model.generate(texts, features[:2])


def test_a_checkpoint_by_name_answers_all(run, base):
    lines = [{"task": task, "language": "sw", "text": "a"} for task in ("ner", PARSING)]
    expected = [
        alone(run, base, "last", PROMPTS[task].format("Swahili", "a"), [f"task:{task}", "language:sw"])
        for task in ("ner", PARSING)
    ]
    assert predict.Predictor(run, "last").predict(lines) == expected


def test_what_all_texts_share_needs_no_name(tiny, base, tmp_path):
    run = do([*tiny, "flix=compute_matched", "trainer.max_steps=2"], tmp_path)
    line = {"task": "ner", "language": "sw", "text": "a", "shared": "mine"}
    prompted = PROMPTS["ner"].format("Swahili", "a")
    assert predict.Predictor(run).predict([line]) == [alone(run, base, "best-ner", prompted, ["shared:all"])]


def test_a_kind_that_follows_from_the_language_needs_no_key(tiny, tmp_path):
    """An unseen language has the rows of its family."""
    family = ["+attributes=family", "+mixture.ranks.family=2", "flix.controls=[]", "trainer.max_steps=1"]
    model = predict.Predictor(do([*tiny, *family], tmp_path), accelerator="cpu")
    line = {"task": "ner", "language": "zu", "text": "a"}
    request = model.requests.from_line(line, "line 1")
    assert request.features == ("task:ner", "family:Atlantic-Congo")
    assert (request.dropped, request.lacking) == (("language:zu",), ())
    own = model.requests.from_line({**line, "family": "Indo-European"}, "line 1")
    assert own.features == ("task:ner", "family:Indo-European")
    unknown = model.requests.from_line({**line, "language": "quz"}, "line 1")
    assert unknown.lacking == ("family",)


def test_a_decoder_only_model_answers_as_in_its_run(tiny, data, decoder_base, tmp_path):
    run = do([*tiny, f"model.pretrained={decoder_base}", "trainer.max_steps=2"], tmp_path)
    lines = [{**line, "task": "ner", "language": "yo"} for line in json_lines(data / "ner/test/yo.jsonl")]
    found = [line["prediction"] for line in json_lines(run / "predictions/test-all/ner/yo.jsonl")]
    assert predict.Predictor(run, batch_size=3).predict(lines) == found


def test_weights_of_a_precision_are_those_of_training(tiny, base, data, tmp_path):
    """A run answers as in its test; and float16, in which this base overflows, is refused."""
    large = AutoModelForSeq2SeqLM.from_pretrained(base)
    with torch.no_grad():
        for name, weight in large.named_parameters():
            if "DenseReluDense" in name:
                weight.mul_(800)
    large.save_pretrained(tmp_path / "base")
    ByT5Tokenizer().save_pretrained(tmp_path / "base")
    own = [f"model.pretrained={tmp_path}/base", "trainer.precision=bf16-true", "trainer.max_steps=2"]
    run = do([*tiny, *own], tmp_path)
    lines = [{**line, "task": "ner", "language": "sw"} for line in json_lines(data / "ner/test/sw.jsonl")]
    found = [line["prediction"] for line in json_lines(run / "predictions/test-all/ner/sw.jsonl")]
    assert predict.Predictor(run).predict(lines) == found
    assert predict.Predictor(run, precision="32-true").predict(lines) != found
    with pytest.raises(UserError, match="not finite"):
        predict.Predictor(run, precision="16-true")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"task": "ner", "language": "sw"}, "x:1: no text .* needs text or prompt, or the keys of ner: text"),
        ({"task": "qa_in_lang", "question": "?"}, "or the keys of qa_in_lang: question, title, context"),
        ({}, "x:1: no text to answer; it needs text or prompt$"),
        ({"text": 3}, "x:1: the value of 'text' is 3; a string is needed"),
        ({"text": "a", "language": ["sw"]}, r"'language' is \[\"sw\"\]; a string is needed"),
        ({"text": "a", "task": None}, "'task' is null; a string is needed"),
        ({"text": "a", "task": ""}, "'task' is empty"),
        ({"prompt": "\ud800"}, "half a surrogate pair"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_read_is_one_line(model, line, said):
    with pytest.raises(UserError, match=said):
        model.requests.from_line(line, "x:1")


# -- the command


@pytest.fixture(scope="module")
def lines(data):
    """Every line of the test data, of all datasets in turn, with its task and language."""
    files = [
        [
            {**line, "task": task, "language": code}
            for line in json_lines(data / task / "test" / f"{code}.jsonl")
        ]
        for task, code in [*SEEN, *UNSEEN]
    ]
    return [line for turn in zip(*files, strict=True) for line in turn]


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def in_turns():
    """Windows of a batch, each after a while."""
    answer = predict.Predictor.answer

    def slow(self, requests):
        time.sleep(0.2)
        return answer(self, requests)

    predict.Predictor.answer = slow
    predict.WINDOW = 1


def test_a_killed_call_goes_on_to_what_an_unbroken_one_gives(done, lines, tmp_path):
    source = write(tmp_path / "lines.jsonl", lines)
    given = (f"run={done}", f"input={source}", "batch_size=4")
    ran = commands.run(tmp_path / "unbroken", "predict.py", *given)
    assert ran.out.splitlines()[-1] == str(tmp_path / "lines.predictions.jsonl")
    whole = (tmp_path / "lines.predictions.jsonl").read_bytes()
    # The order is that of the lines, and the predictions are those of the run's own test.
    test = {
        (task, code): json_lines(done / f"predictions/test-all/{task}/{code}.jsonl")
        for task, code in [*SEEN, *UNSEEN]
    }
    expected = [
        {"prediction": test[line["task"], line["language"]][number // len(test)]["prediction"]}
        for number, line in enumerate(lines)
    ]
    assert [json.loads(line) for line in whole.decode().splitlines()] == expected
    assert "never trained, so dropped: language:zu (4)" in ran.out
    assert "24/24" in ran.err

    killed = commands.start(tmp_path / "killed", "predict.py", *given, "out=out.jsonl", before=in_turns)
    out = tmp_path / "killed/out.jsonl"
    killed.wait_for("out.jsonl")
    while not (begun := out.read_bytes()):
        assert killed.process.is_alive(), killed.err
        time.sleep(0.01)
    killed.kill()
    assert whole.startswith(begun)
    assert len(begun) < len(whole)
    out.write_bytes(begun + b'{"predict')
    commands.run(tmp_path / "killed", "predict.py", *given, "out=out.jsonl", before=in_turns)
    assert out.read_bytes() == whole
    written = out.stat().st_mtime_ns
    commands.run(tmp_path / "killed", "predict.py", *given, "out=out.jsonl")  # nothing is left to do
    assert out.stat().st_mtime_ns == written
    write(source, lines[:-1])
    refused = commands.run(tmp_path / "killed", "predict.py", *given, "out=out.jsonl", code=1)
    (line,) = refused.err.splitlines()
    assert line.startswith("error: out.jsonl was begun with another input;")
    assert out.read_bytes() == whole


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"", "-: the file is empty"),
        (b'{"text": 1}\n', "-:1: "),
        (None, "input=- is standard input, which is closed"),
    ],
)
def test_a_bad_pipe_is_named_as_it_was_given(done, tmp_path, monkeypatch, given, said):
    monkeypatch.setattr(sys, "stdin", None if given is None else io.TextIOWrapper(io.BytesIO(given)))
    cfg = composed(done, tmp_path)
    cfg.input, cfg.out = "-", str(tmp_path / "out.jsonl")
    with pytest.raises(UserError, match=f"^{said}"):
        command.predict(cfg)
    assert not Path(cfg.out).exists()


@pytest.mark.parametrize("explain", ["--explain", "explain=true"])
def test_each_line_is_explained(run, tmp_path, explain):
    line = {"task": "ner", "language": "zu", "text": "a", "id": "x"}
    source = write(tmp_path / "in.jsonl", [line])
    commands.run(tmp_path, "predict.py", f"run={run}", f"input={source}", "out=out", explain)
    (found,) = json_lines(tmp_path / "out")
    assert found.pop("prediction") is not None
    assert found == {
        "read": "find entities in Zulu: a",
        "features": ["task:ner"],
        "dropped": ["language:zu"],
        "unused": ["id"],
        "checkpoint": "best-ner",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    {
        "no run": (["run=nowhere"], ["run=nowhere", "results.jsonl"]),
        "no input": (["input=nowhere.jsonl"], ["nowhere.jsonl", "cannot be read"]),
        "no checkpoint": (["checkpoint=best-qa"], ["no best-qa", "best-ner", "last"]),
        "a bad line after good ones": (["input=bad.jsonl"], ["bad.jsonl:2", "not JSON"]),
        "no number": (["batch_size=0"], ["batch_size is 0", "whole number from 1"]),
        "no truth": (["explain=perhaps"], ["explain is 'perhaps'", "true or false"]),
        "no accelerator": (["accelerator=abacus"], ["abacus", "cpu"]),
        "no precision": (["precision=7-bit"], ["7-bit", "bf16-mixed"]),
        "the input itself": (["out=in.jsonl"], ["out=in.jsonl is the input itself"]),
        "no file to write": (["out=/dev/null"], ["out=/dev/null is no file"]),
        "a folder to write": (["out=."], ["out=. is no file"]),
        "standard output": (["out=-"], ["out=- is no file"]),
        "a misspelt key": (["explian=true"], ["explian", "did you mean 'explain'"]),
    }.values(),
    ids=lambda value: None,
)
def test_a_mistake_is_one_line_and_leaves_nothing(run, tmp_path, arguments, said):
    write(tmp_path / "in.jsonl", [{"text": "a"}])
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": "b"\n')
    given = {"run": run, "input": "in.jsonl", "out": "out"} | dict(one.split("=", 1) for one in arguments)
    ran = commands.run(tmp_path, "predict.py", *(f"{key}={value}" for key, value in given.items()), code=1)
    (line,) = [line for line in ran.err.splitlines() if "Loading weights" not in line and line]
    assert line.startswith("error: ")
    for text in said:
        assert text in line
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]
    assert json_lines(tmp_path / "in.jsonl") == [{"text": "a"}]


def composed(run, folder):
    return commands.compose("predict", f"run={run}", f"input={folder}/in.jsonl", f"out={folder}/out")


@pytest.mark.parametrize("way", ["pipe", "standard input"])
def test_lines_of_a_pipe_are_answered_as_those_of_a_file(done, tmp_path, monkeypatch, way):
    lines = [{"task": "ner", "language": code, "text": "x" * n} for n, code in enumerate(("sw", "yo", "sw"))]
    source = write(tmp_path / "lines.jsonl", lines)
    cfg = composed(done, tmp_path)
    cfg.input, cfg.out = str(source), None
    expected = command.predict(cfg).read_bytes()
    cfg.input, cfg.out = "-", str(tmp_path / "out.jsonl")
    if way == "pipe":
        cfg.input = str(tmp_path / "pipe")
        os.mkfifo(cfg.input)
        Thread(target=Path(cfg.input).write_bytes, args=(source.read_bytes(),), daemon=True).start()
    else:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    assert command.predict(cfg).read_bytes() == expected
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]
    cfg.out = None
    with pytest.raises(UserError, match=r"is a pipe.* give out=FILE"):
        command.predict(cfg)


def test_an_interrupted_call_says_how_to_go_on(run, tmp_path, monkeypatch):
    def interrupted(self, requests):
        raise KeyboardInterrupt

    monkeypatch.setattr(predict.Predictor, "answer", interrupted)
    write(tmp_path / "in.jsonl", [{"text": "a"}])
    with pytest.raises(SystemExit, match="out: interrupted; call again to go on"):
        command.predict(composed(run, tmp_path))


def test_memory_does_not_grow_with_the_file(run, tmp_path, monkeypatch):
    monkeypatch.setattr(predict.Predictor, "answer", lambda self, requests: ["x" * 1000] * len(requests))
    cfg = composed(run, tmp_path)
    line = json.dumps({"text": "x" * 60_000}) + "\n"
    with (tmp_path / "in.jsonl").open("w") as file:
        file.writelines(line for _ in range(2000))
    command.predict(cfg)  # what the first call alone needs, as imports, is no part of it
    (tmp_path / "out").unlink()
    (tmp_path / "out.inputs.json").unlink()
    tracemalloc.start()
    try:
        command.predict(cfg)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len((tmp_path / "out").read_text().splitlines()) == 2000
    assert peak < 24 * 2**20 < 2000 * len(line) / 4
