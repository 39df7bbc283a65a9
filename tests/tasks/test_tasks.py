import pytest

from flix_lightning.common.errors import UserError
from flix_lightning.tasks.definitions import TASKS, get_task
from flix_lightning.tasks.languages import is_known, language_name
from flix_lightning.tasks.metrics import METRICS

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
    ],
)
def test_prompts(task, language, line, expected):
    assert get_task(task).render(line, language) == expected


def test_tasks_metrics_are_there():
    assert {name: task.metric for name, task in TASKS.items()} == {
        "ner": "span_f1",
        "translation": "chrf",
        "qa_in_lang": "qa_f1",
        "qa_cross_lang": "qa_f1",
        "semantic_parsing": "exact_match",
    }
    assert {task.metric for task in TASKS.values()} <= METRICS.keys()


def test_unknown_task_lists_the_tasks():
    with pytest.raises(UserError, match=r"'qa_inlang'.*did you mean 'qa_in_lang'.*translation"):
        get_task("qa_inlang")


# Every code of the paper's Appendix B.
PAPER = (
    "am ar as bbj be bho bm bn brx de de_localized ee en es fi fr gbm gom gu ha hi hne hu id ig ja kn ko lg "
    "luo mai ml mni mos mr mwr ny or pa pcm ps pt_br ru rw sa sn sw ta te th tn tr tw ur wo xh yo zu"
)


@pytest.mark.parametrize("code", [*PAPER.split(), "no"])
def test_paper_languages_are_known_and_named(code):
    assert is_known(code)
    assert language_name(code) not in ("", code)


def test_names_tell_the_papers_languages_apart():
    assert len(set(map(language_name, PAPER.split()))) == len(PAPER.split())


@pytest.mark.parametrize(
    ("code", "hint"),
    [("swahili", r"sw \(Swahili\)"), ("pt-br", r"pt_br"), ("qqqq", r"'qqqq'$"), ("", r"''$")],
)
def test_unknown_language(code, hint):
    assert not is_known(code)
    with pytest.raises(UserError, match=hint):
        language_name(code)
