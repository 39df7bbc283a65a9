import json

import pytest
import yaml

from flix_lightning.common.errors import UserError
from flix_lightning.tasks.definitions import Tasks, read_task, shipped_tasks

QA = {"question": "Nani?", "title": "Mlima", "context": "Ni {Kibo}.", "target": "Kibo"}


@pytest.mark.parametrize(
    ("task", "language", "line", "expected"),
    [
        ("ner", "ha", {"text": "A\tB  C", "target": ""}, "find entities in Hausa: A B  C"),
        ("translation", "sw", {"input": "One\ttwo", "target": "x"}, "translate to Swahili: One\ttwo"),
        ("semantic_parsing", "pt_br", {"input": "{a}", "target": "x"}, "parse Brazilian Portuguese: {a}"),
        ("qa_in_lang", "sw", QA, "answer in Swahili: question: Nani? title: Mlima context: Ni {Kibo}."),
        (
            "qa_cross_lang",
            "te",
            QA,
            "answer Telugu in English: question: Nani? title: Mlima context: Ni {Kibo}.",
        ),
        ("summarization", "quz", {"text": "Huk.", "summary": "x"}, "summarize in Cusco Quechua: Huk."),
        ("summarization", "xx-1", {"text": "Huk.", "summary": "x"}, "summarize in xx-1: Huk."),
    ],
)
def test_prompts(task, language, line, expected):
    tasks = Tasks.of()
    assert tasks.render(tasks.get(task), line, language) == expected


def test_tasks_metrics_are_there():
    assert {name: task.metrics for name, task in shipped_tasks().items()} == {
        "ner": ("span_f1",),
        "translation": ("chrf",),
        "qa_in_lang": ("qa_f1",),
        "qa_cross_lang": ("qa_f1",),
        "semantic_parsing": ("exact_match",),
        "summarization": ("rougeL", "chrf"),
    }


def test_the_papers_tasks_are_hashed_as_ever():
    """Otherwise finished runs would be trained again."""
    template = "question: {question} title: {title} context: {context}"
    assert shipped_tasks()["qa_in_lang"].deciding() == {
        "name": "qa_in_lang",
        "keys": ("question", "title", "context", "target"),
        "input": template,
        "target": "target",
        "prompt": "answer in {language}: {input}",
        "metric": "qa_f1",
        "file": "{language}",
        "tabs_to_spaces": False,
    }
    assert shipped_tasks()["summarization"].deciding()["metrics"] == ["chrf"]


def test_unknown_task_lists_the_tasks():
    with pytest.raises(UserError, match=r"'qa_inlang'.*did you mean 'qa_in_lang'.*translation.*--config-dir"):
        Tasks.of().get("qa_inlang")


# -- a task of one's own

OWN = {
    "input": "{title} - {body}",
    "target": "headline",
    "prompt": "headline in {language}: {input}",
    "metrics": ["rouge2", "bleu", "rougeL"],
    "selects": "rougeL",
}


def written(folder, definition):
    path = folder / "headlines.yaml"
    path.write_text(definition if isinstance(definition, str) else yaml.safe_dump(definition))
    return path


def test_a_task_of_ones_own(tmp_path):
    path = written(tmp_path, OWN)
    tasks = Tasks.of({"headlines": str(path), "other": str(path)}, {"quz": "Qusqu runasimi"})
    assert tasks.get("other").name == "other"
    task = tasks.get("headlines")
    assert task.metrics == ("rougeL", "rouge2", "bleu")
    assert task.keys == ("title", "body", "headline")
    line = {"title": "A {x}", "body": "B", "headline": "C"}
    assert tasks.render(task, line, "quz") == "headline in Qusqu runasimi: A {x} - B"
    # A run keeps the definition in its config, when the file may be gone.
    kept = json.loads(json.dumps(task.definition()))
    assert Tasks.of({"headlines": kept}).get("headlines") == task


def test_a_task_of_ones_own_comes_before_the_shipped_of_its_name(tmp_path):
    tasks = Tasks.of({"ner": OWN})
    assert tasks.get("ner").target == "headline"
    assert tasks.get("translation") == shipped_tasks()["translation"]


def without(key):
    return {name: value for name, value in OWN.items() if name != key}


@pytest.mark.parametrize(
    ("definition", "key", "said"),
    [
        (without("target"), "target is missing", "target: summary"),
        (without("input"), "input is missing", 'input: "{text}"'),
        (without("prompt"), "prompt is missing", "{language}"),
        (without("metrics"), "metrics is missing", "metrics: [rougeL, chrf]"),
        ({**OWN, "metric": "bleu"}, "metric: no such key", "did you mean 'metrics'"),
        ({**OWN, "metrics": ["rouge-l"]}, "metrics: unknown metric 'rouge-l'", "did you mean 'rouge"),
        ({**OWN, "metrics": "rougeL"}, "metrics is 'rougeL'", "a list of names"),
        ({**OWN, "metrics": []}, "metrics is []", "one name or more"),
        ({**OWN, "metrics": ["bleu", "bleu"]}, "metrics is ['bleu', 'bleu']", "each once"),
        ({**OWN, "selects": ["bleu", "rougeL"]}, "selects is ['bleu', 'rougeL']", "one name"),
        ({**OWN, "selects": "chrf"}, "selects is 'chrf'", "rouge2, bleu, rougeL"),
        ({**OWN, "metrics": ["ter", "bleu"], "selects": "ter"}, "ter is better where it is lower", "selects"),
        ({**OWN, "prompt": "in {lang}: {input}"}, "prompt: unknown field {lang}", "did you mean 'language'"),
        ({**OWN, "prompt": "in {language}"}, "prompt", "needs {input} once"),
        ({**OWN, "prompt": "{input} in {language}:"}, "prompt: it must end with {input}", "cut off"),
        ({**OWN, "file": "data"}, "file", "needs {language} once"),
        ({**OWN, "file": "{task}-{language}"}, "file: unknown field {task}", "{language}"),
        ({**OWN, "file": "../{language}"}, "file is '../{language}'", "without .jsonl"),
        ({**OWN, "input": "{title.__class__}"}, "input: {title.__class__} is no field", "in braces"),
        ({**OWN, "input": "{0}"}, "input: {0} is no field", "in braces"),
        ({**OWN, "input": "{title"}, "input: ", "written twice"),
        ({**OWN, "input": "none"}, "input has no field", "{text}"),
        ({**OWN, "input": "{headline}"}, "target is 'headline', which input has too", "read the answer"),
        ("input: {text}", "input is", 'in quotes, as "{text}"'),
        ({**OWN, "tabs_to_spaces": "yes please"}, "tabs_to_spaces is 'yes please'", "true or false"),
        ("- a", "a task is a mapping", "input, target, prompt"),
        ("", "input is missing", 'input: "{text}"'),
        ("input: [", "no YAML of a task", "line"),
        ("input: a\ninput: b", "no YAML of a task", "duplicate key"),
    ],
)
def test_a_malformed_task_is_one_line_of_file_and_key(tmp_path, definition, key, said):
    path = written(tmp_path, definition)
    if definition == "input: {text}":
        path.write_text(yaml.safe_dump({**without("input")}) + definition)
    with pytest.raises(UserError) as caught:
        read_task(path, "headlines")
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert key in line
    assert said in line


def test_a_malformed_name_of_a_language():
    with pytest.raises(UserError, match=r'data\.languages.*"no" in quotes'):
        Tasks.of({}, {False: "Norwegian"})
    with pytest.raises(UserError, match=r"data\.languages\.quz: 5 is not a string"):
        Tasks.of({}, {"quz": 5})
