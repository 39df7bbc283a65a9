"""The tasks: what each reads, its prompt (paper §4) and its metric. The keys are XTREME-UP's."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from flix_lightning.common.errors import UserError, did_you_mean
from flix_lightning.tasks.languages import language_name

#: Raise it when `Task.render` gives another text for the same task, language and line. Caches depend on it.
PROMPT_VERSION = 1


@dataclass(frozen=True)
class Task:
    """One task of XTREME-UP's layout. The names and values of its fields are part of every run's hash.

    Attributes:
        name: The folder's name.
        keys: The JSON keys that every line needs, each a string.
        input: Format template over the keys, without the prompt.
        target: The key of the target text.
        prompt: Format template over `language` (English name) and `input`. It is short for small models.
        metric: A key of `flix_lightning.tasks.metrics.METRICS`.
        file: Format template over `language` (code) of a data file's name without `.jsonl`.
        tabs_to_spaces: Whether tabs of the input become spaces, as in XTREME-UP's baseline for NER.
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
        """The keys of the input."""
        return tuple(key for key in self.keys if key != self.target)

    def render(self, line: Mapping[str, str], language: str) -> str:
        """Return the prompted input of a line of data. `language` is a code."""
        return self.prompted(self.input.format_map(line), language)

    def prompted(self, text: str, language: str) -> str:
        """Return an input with its prompt. `language` is a code."""
        if self.tabs_to_spaces:
            text = text.replace("\t", " ")
        return self.prompt.format(language=language_name(language), input=text)

    def render_key(self, language: str) -> list[object]:
        """Return all that `render` depends on beside the line, as JSON data for the keys of caches."""
        return [PROMPT_VERSION, asdict(self), language_name(language)]


_TEXT = {"keys": ("input", "target"), "input": "{input}", "target": "target"}
_QA = {
    "keys": ("question", "title", "context", "target"),
    "input": "question: {question} title: {title} context: {context}",
    "target": "target",
    "metric": "qa_f1",
}

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
            prompt="translate to {language}: {input}",
            metric="chrf",
            file="en2{language}",
            **_TEXT,
        ),
        Task(name="qa_in_lang", prompt="answer in {language}: {input}", **_QA),
        Task(name="qa_cross_lang", prompt="answer {language} in English: {input}", **_QA),
        Task(name="semantic_parsing", prompt="parse {language}: {input}", metric="exact_match", **_TEXT),
    )
}


def get_task(name: str) -> Task:
    """Return the task of that name.

    Raises:
        UserError: There is none. The error names the nearest task and lists all.
    """
    if isinstance(name, str) and name in TASKS:
        return TASKS[name]
    raise UserError(f"unknown task {name!r}: {did_you_mean(name, TASKS)}tasks are {', '.join(TASKS)}")
