"""What each task reads, how it is prompted and how it is scored (paper §4; XTREME-UP's fields)."""

from collections.abc import Mapping
from dataclasses import dataclass

from flix_lightning.common.errors import UserError, did_you_mean
from flix_lightning.tasks.languages import language_name


@dataclass(frozen=True)
class Task:
    """One task of XTREME-UP's layout.

    keys: the JSON keys that every line needs, each a string.
    input: format template over the keys, without prompt.
    target: the key that holds the target text.
    prompt: format template over `language` (English name) and `input`; short, as small models read it.
    metric: key of `flix_lightning.tasks.metrics.METRICS`.
    file: format template of a data file's stem over `language` (code).
    tabs_to_spaces: whether tabs of the input become spaces, as XTREME-UP's baseline does for NER.
    """

    name: str
    keys: tuple[str, ...]
    input: str
    target: str
    prompt: str
    metric: str
    file: str = "{language}"
    tabs_to_spaces: bool = False

    @property
    def input_keys(self) -> tuple[str, ...]:
        """The keys that the input is made of."""
        return tuple(key for key in self.keys if key != self.target)

    def render(self, line: Mapping[str, str], language: str) -> str:
        """Give the prompted input text of one line of data in the language of code `language`."""
        return self.prompted(self.input.format_map(line), language)

    def prompted(self, text: str, language: str) -> str:
        """Give an input in the language of code `language` its prompt."""
        if self.tabs_to_spaces:
            text = text.replace("\t", " ")
        return self.prompt.format(language=language_name(language), input=text)


_QA_KEYS = ("question", "title", "context", "target")
_QA_INPUT = "question: {question} title: {title} context: {context}"

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="ner",
            keys=("text", "target"),
            input="{text}",
            target="target",
            prompt="find entities in {language}: {input}",
            metric="span_f1",
            tabs_to_spaces=True,
        ),
        Task(
            name="translation",
            keys=("input", "target"),
            input="{input}",
            target="target",
            prompt="translate to {language}: {input}",
            metric="chrf",
            file="en2{language}",
        ),
        Task(
            name="qa_in_lang",
            keys=_QA_KEYS,
            input=_QA_INPUT,
            target="target",
            prompt="answer in {language}: {input}",
            metric="qa_f1",
        ),
        Task(
            name="qa_cross_lang",
            keys=_QA_KEYS,
            input=_QA_INPUT,
            target="target",
            prompt="answer {language} in English: {input}",
            metric="qa_f1",
        ),
        Task(
            name="semantic_parsing",
            keys=("input", "target"),
            input="{input}",
            target="target",
            prompt="parse {language}: {input}",
            metric="exact_match",
        ),
    )
}


def get_task(name: str) -> Task:
    """Give the task of that name; raises UserError that lists the tasks, nearest first."""
    if isinstance(name, str) and name in TASKS:
        return TASKS[name]
    raise UserError(f"unknown task {name!r}: {did_you_mean(name, TASKS)}tasks are {', '.join(TASKS)}")
