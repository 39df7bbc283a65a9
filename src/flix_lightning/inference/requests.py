"""What a finished run is asked: one text, with the features that are on for it."""

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flix_lightning.common.errors import UserError, list_names
from flix_lightning.data.attributes import known_attributes
from flix_lightning.data.jsonl import get_string
from flix_lightning.data.layout import Example
from flix_lightning.data.mixture import Dataset
from flix_lightning.data.mixture_config import SHARED
from flix_lightning.runs.run import Run
from flix_lightning.tasks.definitions import Tasks

log = logging.getLogger(__name__)

_SHOWN = 20  # names in one warning

#: Attribute of a request -> what the names in it are, for a warning.
_NOT_USED = {
    "dropped": "never trained, so dropped",
    "lacking": "without a feature of a kind that the run was trained with",
    "unused": "neither text nor feature of this run, so not used",
}
_SHARED_FEATURE = f"shared:{SHARED}"  # every text has it, where the run does


@dataclass(frozen=True)
class Request:
    """One text to answer.

    Attributes:
        text: what the model reads.
        features: "kind:name" of the trained features that are on.
        dropped: "kind:name" of features that were never trained. They contribute nothing.
        lacking: kinds that the run was trained with and the text has no feature of.
        unused: keys of the line that are neither its text nor a feature.
        checkpoint: name of the checkpoint that answers.
        prompted: whether the text has the prompt of its task and language, or one of its own.
    """

    text: str
    features: tuple[str, ...]
    dropped: tuple[str, ...]
    lacking: tuple[str, ...]
    unused: tuple[str, ...]
    checkpoint: str
    prompted: bool


class RequestReader:
    """Makes requests of lines, examples and texts.

    Args:
        run: the finished run.
        features: "kind:name" -> rank of every feature that its checkpoints have.
        checkpoint: name of the checkpoint that answers; None is, for each task, the one that tested it.
    """

    def __init__(self, run: Run, features: Mapping[str, int], checkpoint: str | None):
        self._run, self._checkpoint = run, checkpoint
        self._trained = {feature for feature, rank in features.items() if rank}
        self._kinds = dict.fromkeys(feature.partition(":")[0] for feature in features)
        self._selected: dict[str | None, str] = {}

    def from_line(self, line: Mapping[str, Any], where: str) -> Request:
        """Read a line: a text, and features under the names of their kinds (`"language": "sw"`).

        A kind that follows from another by the run's mixture, as a family from the language, needs no key.

        A line with `prompt` is answered as it stands. Otherwise the text is what the keys of the line's task
        hold, as in data, or `text`. It gets the prompt of its task and language, where both are known.

        Args:
            line: a JSON object.
            where: the line's name in errors.

        Raises:
            UserError: the line has no text, or a value that is no string, or an empty feature.
        """
        kinds = dict.fromkeys([*self._kinds, "task", "language"])
        names = {kind: _name(line, kind, where) for kind in kinds if kind in line}
        text, keys, prompted = _text(line, names.get("task"), names.get("language"), where, self._run.tasks)
        known = known_attributes(names, self._run.attributes)
        features = [f"{kind}:{known[kind]}" for kind in self._kinds if kind in known]
        unused = tuple(key for key in line if key not in names and key not in keys)
        return self.from_text(text, features, names.get("task"), unused, prompted)

    def from_example(self, dataset: Dataset, example: Example) -> Request:
        """Read an example of a dataset; raises UserError as `Dataset.describe` does."""
        described = dataset.describe(example, self._kinds)
        features = [f"{kind}:{name}" for kind, name in described.items()]
        return self.from_text(example.input, features, dataset.task)

    def from_text(
        self,
        text: str,
        features: Collection[str],
        task: str | None = None,
        unused: tuple[str, ...] = (),
        prompted: bool = True,
    ) -> Request:
        """Take a text as it stands, with its features. The task is that of its features unless given."""
        shared = [_SHARED_FEATURE] if _SHARED_FEATURE in self._trained else []
        named = dict.fromkeys([*features, *shared])
        kinds = {feature.partition(":")[0] for feature in named}
        if task is None:
            task = next((name.removeprefix("task:") for name in named if name.startswith("task:")), None)
        if task not in self._selected:
            self._selected[task] = self._run.select_checkpoint(self._checkpoint, [task] if task else [])
        return Request(
            text,
            features=tuple(name for name in named if name in self._trained),
            dropped=tuple(name for name in named if name not in self._trained),
            lacking=tuple(kind for kind in self._kinds if kind not in kinds),
            unused=unused,
            checkpoint=self._selected[task],
            prompted=prompted,
        )


def log_unused(requests: Iterable[Request]) -> int:
    """Log once each feature, kind and key that cannot be used; return how many texts there are."""
    texts = unprompted = 0
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for request in requests:
        texts += 1
        unprompted += not request.prompted
        for key in _NOT_USED:
            found[key].update(getattr(request, key))
    for key, what in _NOT_USED.items():
        if names := [f"{name} ({count})" for name, count in found[key].most_common()]:
            log.warning("of %d texts, %s: %s", texts, what, list_names(names, _SHOWN))
    if unprompted:
        log.warning("of %d texts, without a task and language to prompt by: %d", texts, unprompted)
    return texts


def _name(line: Mapping[str, Any], kind: str, where: str) -> str:
    if not (name := get_string(line, kind, where)):
        raise UserError(f"{where}: the value of {kind!r} is empty; a feature has a name, or leave it out")
    return name


def _text(
    line: Mapping[str, Any], task: str | None, language: str | None, where: str, tasks: Tasks
) -> tuple[str, Collection[str], bool]:
    """Return the text of a line, the keys that hold it, and whether it has a prompt."""
    if "prompt" in line:
        return get_string(line, "prompt", where), ("prompt",), True
    known = tasks.by_name.get(task)
    if known and all(key in line for key in known.input_keys):
        keys = known.input_keys
        text = known.input.format_map({key: get_string(line, key, where) for key in keys})
    elif "text" in line:
        keys, text = ("text",), get_string(line, "text", where)
    else:
        own = f", or the keys of {task}: {', '.join(known.input_keys)}" if known else ""
        raise UserError(f"{where}: no text to answer; it needs text or prompt{own}")
    if known is None or language is None:
        return text, keys, False
    return known.prompted(text, tasks.language_name(language)), keys, True
