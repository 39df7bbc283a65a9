"""The tasks: what each reads, its prompt (paper §4) and its metrics. Each is a YAML file of `conf/task/`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any, Self

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from flix_lightning.common.errors import UserError, did_you_mean, one_line
from flix_lightning.common.names import check_name, text_keys
from flix_lightning.common.scripts import CONF
from flix_lightning.common.settings import BOOLEAN, NAME, Kind, list_of, nullable
from flix_lightning.tasks.languages import base_names, find_name, warn_of_unknown
from flix_lightning.tasks.metrics import LOWER_IS_BETTER, METRICS

#: Raise it when `Task.render` gives another text for the same task, language and line. Caches depend on it.
PROMPT_VERSION = 1

#: XTREME-UP's tasks that the paper trains on (Table 1).
PAPER_TASKS = ("ner", "translation", "qa_in_lang", "qa_cross_lang", "semantic_parsing")

_TEMPLATE = Kind('a text in quotes, as "{text}",', lambda value: isinstance(value, str) and value.strip())
_KEY = Kind("a text", lambda value: isinstance(value, str) and value)
_NAME = Kind("one name", lambda value: isinstance(value, str))
#: Key of a task's YAML -> what its value may be, and what it is, for the error where it is missing.
_KEYS: dict[str, tuple[Kind, str]] = {
    "input": (_TEMPLATE, 'what the model reads of a line of data, as input: "{text}"'),
    "target": (_KEY, "the key of the answer in a line of data, as target: summary"),
    "prompt": (_TEMPLATE, 'the text around the input, as prompt: "summarize in {language}: {input}"'),
    "metrics": (list_of(_NAME, "a list of names"), "how answers are scored, as metrics: [rougeL, chrf]"),
    "selects": (nullable(_NAME), ""),
    "file": (nullable(_TEMPLATE), ""),
    "tabs_to_spaces": (nullable(BOOLEAN), ""),
}


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: The name of its folder in the data.
        input: Format template over the keys of a line, without the prompt.
        target: The key of the target text.
        prompt: Format template over `language` (English name) and `input`. It is short for small models.
        metrics: Names of `flix_lightning.tasks.metrics.METRICS`. The first selects checkpoints.
        file: Format template over `language` (code) of a data file's name without `.jsonl`.
        tabs_to_spaces: Whether tabs of the input become spaces, as in XTREME-UP's baseline for NER.
    """

    name: str
    input: str
    target: str
    prompt: str
    metrics: tuple[str, ...]
    file: str = "{language}"
    tabs_to_spaces: bool = False

    @classmethod
    def parse(cls, name: str, definition: Any, place: str) -> Self:
        """Read a task's definition.

        Args:
            name: The task's name.
            definition: The plain content of its YAML.
            place: Its file, for errors.

        Raises:
            UserError: The definition is malformed, naming the file, the key and what would be right.
        """
        if not NAME.accepts(name):
            raise UserError(f"{place}: {name!r} names the task; {NAME.words} is needed")
        if not isinstance(definition, Mapping):
            raise UserError(f"{place}: a task is a mapping with the keys {', '.join(_KEYS)}")
        for key in definition:
            if key not in _KEYS:
                raise UserError(
                    f"{place}: {key}: no such key; {did_you_mean(key, _KEYS)}keys are {', '.join(_KEYS)}"
                )
        for key, (kind, meaning) in _KEYS.items():
            if meaning and key not in definition:
                raise UserError(f"{place}: {key} is missing; it is {meaning}")
            kind.require(f"{place}: {key}", definition.get(key))
        given = {key: value for key, value in definition.items() if value is not None}
        given["metrics"] = _order_metrics(place, given["metrics"], given.pop("selects", None))
        task = cls(name=name, **given)
        _check_templates(place, task)
        return task

    @property
    def metric(self) -> str:
        """The metric that selects checkpoints."""
        return self.metrics[0]

    @property
    def input_keys(self) -> tuple[str, ...]:
        """The keys of the input."""
        return tuple(dict.fromkeys(_fields(self.input)))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that every line of data needs, each a string."""
        return (*self.input_keys, self.target)

    def render(self, line: Mapping[str, str], language: str) -> str:
        """Return the prompted input of a line of data. `language` is an English name."""
        return self.prompted(self.input.format_map(line), language)

    def prompted(self, text: str, language: str) -> str:
        """Return an input with its prompt. `language` is an English name."""
        if self.tabs_to_spaces:
            text = text.replace("\t", " ")
        return self.prompt.format(language=language, input=text)

    def deciding(self) -> dict[str, Any]:
        """Return all of the task that decides a result, as JSON data for the hashes of runs and of caches.

        It is as it was when tasks had one metric, so that the hashes of that time stay.
        """
        keys = ("name", "keys", "input", "target", "prompt", "metric", "file", "tabs_to_spaces")
        others = {"metrics": list(self.metrics[1:])} if len(self.metrics) > 1 else {}
        return {key: getattr(self, key) for key in keys} | others

    def definition(self) -> dict[str, Any]:
        """Return what `parse` reads, as plain data."""
        keys = ("input", "target", "prompt", "metrics", "file", "tabs_to_spaces")
        return {key: getattr(self, key) for key in keys} | {"metrics": list(self.metrics)}


@dataclass(frozen=True)
class Tasks:
    """The tasks that a run knows, and the names that its prompts give to languages.

    Attributes:
        by_name: Name -> task.
        language_names: Language code -> English name, of the user's own. They come before all others.
    """

    by_name: Mapping[str, Task]
    language_names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, own: Mapping[str, Any] | None = None, language_names: Mapping[Any, Any] | None = None
    ) -> Self:
        """Return the shipped tasks and one's own, which come before shipped ones of the same name.

        Args:
            own: Name -> the path of a task's YAML, or its content as plain data.
            language_names: Language code -> English name.

        Raises:
            UserError: A file cannot be read, or a definition or a language name is malformed.
        """
        tasks = {
            name: read_task(Path(one), name)
            if isinstance(one, str)
            else Task.parse(name, one, f"tasks.{name}")
            for name, one in (own or {}).items()
        }
        names = text_keys("data.languages", language_names or {})
        for code, name in names.items():
            check_name(f"data.languages.{code}", name)
        return cls({**shipped_tasks(), **tasks}, names)

    def get(self, name: Any) -> Task:
        """Return the task of that name.

        Raises:
            UserError: There is none. The error names the nearest task and lists all.
        """
        if isinstance(name, str) and name in self.by_name:
            return self.by_name[name]
        raise UserError(
            f"unknown task {name!r}: {did_you_mean(name, self.by_name)}tasks are {', '.join(self.by_name)}; "
            "one of your own is FOLDER/task/NAME.yaml, with --config-dir FOLDER"
        )

    def language_name(self, code: str) -> str:
        """Return what prompts call a language: its English name, or its code where no name is known."""
        return self.language_names.get(code) or find_name(code) or code

    def render(self, task: Task, line: Mapping[str, str], language: str) -> str:
        """Return the prompted input of a line of data. `language` is a code."""
        return task.render(line, self.language_name(language))

    def render_key(self, task: str, language: str) -> list[object]:
        """Return all that `render` depends on beside the line, as JSON data for the keys of caches."""
        return [PROMPT_VERSION, self.get(task).deciding(), self.language_name(language)]

    def warn_of_codes(self, codes: Iterable[str]) -> None:
        """Log which codes stand in prompts in place of a name, once in a process for the same codes."""
        warn_of_unknown(tuple(sorted({one for one in codes if self.language_name(one) == one})))

    def deciding_names(self, codes: Iterable[str]) -> dict[str, str]:
        """Return code -> name of those languages that prompts call otherwise than `base_names`."""
        named = {code: self.language_name(code) for code in sorted(set(codes))}
        return {code: name for code, name in named.items() if base_names().get(code) != name}


@cache
def shipped_tasks() -> Mapping[str, Task]:
    """Return name -> task of each file in `conf/task/`."""
    return {path.stem: read_task(path, path.stem) for path in sorted((CONF / "task").glob("*.yaml"))}


def read_task(path: Path, name: str) -> Task:
    """Read the YAML of the task of that name.

    Raises:
        UserError: The file cannot be read, or as `Task.parse`.
    """
    try:
        definition = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: no YAML of a task ({one_line(error)})") from error
    return Task.parse(name, definition, str(path))


def _order_metrics(place: str, names: list[str], selects: str | None) -> tuple[str, ...]:
    """Return the names of metrics with the selecting one first."""
    for name in names:
        if name not in METRICS:
            raise UserError(
                f"{place}: metrics: unknown metric {name!r}; {did_you_mean(name, METRICS)}metrics are "
                + ", ".join(METRICS)
            )
    if len(set(names)) < len(names) or not names:
        raise UserError(f"{place}: metrics is {names}; one name or more is needed, each once")
    first = selects or names[0]
    if first not in names:
        raise UserError(f"{place}: selects is {first!r}; one of metrics ({', '.join(names)}) is needed")
    if first in LOWER_IS_BETTER:
        raise UserError(
            f"{place}: {first} is better where it is lower, so it cannot select a checkpoint; add a metric "
            "that is better where it is higher, and name it in selects"
        )
    return (first, *(name for name in names if name != first))


def _check_templates(place: str, task: Task) -> None:
    fields = {}
    for key in ("input", "prompt", "file"):
        try:
            fields[key] = _fields(getattr(task, key))
        except ValueError as error:
            raise UserError(
                f"{place}: {key}: {error}; a field is a name in braces, as {{text}}, and a brace of the text "
                "itself is written twice"
            ) from error
    if not fields["input"]:
        raise UserError(f"{place}: input has no field; it needs a key of the data in braces, as {{text}}")
    if task.target in fields["input"]:
        raise UserError(
            f"{place}: target is {task.target!r}, which input has too, so the model would read the answer"
        )
    for key, known, needed in (
        ("prompt", ("language", "input"), "input"),
        ("file", ("language",), "language"),
    ):
        for name in fields[key]:
            if name not in known:
                raise UserError(
                    f"{place}: {key}: unknown field {{{name}}}; {did_you_mean(name, known)}it may name "
                    + " and ".join(f"{{{one}}}" for one in known)
                )
        if fields[key].count(needed) != 1:
            raise UserError(f"{place}: {key}: it needs {{{needed}}} once")
    if not task.prompt.rstrip().endswith("{input}"):
        raise UserError(
            f"{place}: prompt: it must end with {{input}}; text after it would be cut off with a long input"
        )
    if "/" in task.file or task.file.startswith("."):
        raise UserError(f"{place}: file is {task.file!r}; the name of a file without .jsonl is needed")


def _fields(template: str) -> list[str]:
    """Return the names of a template's fields, in their order."""
    names = []
    for _, name, specification, conversion in Formatter().parse(template):
        if name is None:
            continue
        # A dot or a bracket would look into Python objects.
        if specification or conversion or not re.fullmatch(r"[^\W\d][\w -]*", name):
            raise ValueError(f"{{{name}}} is no field")
        names.append(name)
    return names
