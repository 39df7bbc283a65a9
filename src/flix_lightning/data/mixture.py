"""Which datasets a run trains on and which it evaluates, from a YAML list of (task, languages)."""

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from flix_lightning.common import settings
from flix_lightning.common.errors import UserError, did_you_mean
from flix_lightning.data import layout as layouts
from flix_lightning.data.layout import Example, Layout
from flix_lightning.tasks import definitions as tasks
from flix_lightning.tasks import languages
from flix_lightning.tasks.definitions import get_task
from flix_lightning.tasks.languages import is_known, language_name

_log = logging.getLogger(__name__)

SHARED = "all"  # every dataset's value of the kind `shared`

_ENTRIES = settings.list_of(settings.ANY, "a list of entries, as {task: ner, languages: [sw]},")
_KEYS = {
    "name": settings.NAME,
    "ranks": settings.MAPPING,
    "train": _ENTRIES,
    "evaluate": _ENTRIES,
    "report": settings.list_of(settings.TEXT, "a list of tasks"),
    "sampling": settings.nullable(settings.MAPPING),
}
_TEMPERATURE = settings.Kind(
    "a number above 0 or .inf (uniform)", lambda value: type(value) in (int, float) and value > 0
)
_CAP = settings.nullable(settings.integer(1))
_PARAMETERS = {"task", "language"}  # what the lists of a mixture that is written once for many may refer to
_GIVEN_KINDS = ("task", "language", "shared")


class NothingThere(UserError):  # noqa: N818 - a state of the data, not a fault where data may be missing
    """With `allow_missing`, the data holds nothing that this mixture could train on or select by."""


@dataclass(frozen=True)
class Dataset:
    """One task in one language, and what else the mixture says of it.

    attributes: kind -> name; always task, language and shared.
    seen: `seen` when it is trained on, `unseen_<kind>` when no trained dataset has its value of that kind
        (the first such kind, in the order of the attributes), `unseen_combination` otherwise (paper §3.2).
    """

    attributes: dict[str, str]
    seen: str

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.attributes["task"]

    @property
    def language(self) -> str:
        """Code of the language."""
        return self.attributes["language"]

    def describe(self, example: Example, kinds: Iterable[str]) -> dict[str, str]:
        """Give kind -> name of one of its examples; what the mixture says goes before the line's own keys.

        Raises UserError when neither carries a kind, or when the line's value is not a non-empty string.
        """
        described = {}
        for kind in kinds:
            if kind not in self.attributes and kind not in example.attributes:
                raise UserError(
                    f"feature kind {kind!r}: neither the mixture's entry of {self.task}/{self.language} "
                    f"(which says {', '.join(self.attributes)}) nor the line {example.id} "
                    f"(keys {', '.join(example.attributes)}) carries it"
                )
            value = self.attributes.get(kind, example.attributes.get(kind))
            if not isinstance(value, str) or not value:
                raise UserError(
                    f"feature kind {kind!r}: {example.id} says {value!r}; a non-empty string is needed"
                )
            described[kind] = value
        return described


@dataclass(frozen=True)
class Mixture:
    """A resolved mixture: all that it names is known, and is there unless listed in `missing`.

    ranks: FLix's ranks for this mixture, kind -> rank, as the YAML says them.
    train, evaluate: datasets in the order of the YAML.
    report: tasks that a table reports.
    temperature, cap: how training datasets are mixed (see `flix_lightning.data.batches.mixing_rates`).
    missing: files below the root that the mixture names and the folder lacks, as it went on without them.
    """

    name: str
    ranks: dict[str, Any]
    train: list[Dataset]
    evaluate: list[Dataset]
    report: list[str]
    temperature: float
    cap: int | None
    missing: list[str]

    @classmethod
    def resolve(cls, cfg: Mapping[str, Any], layout: Layout | None, allow_missing: bool = False) -> "Mixture":
        """Check a mixture's config against the tasks, the languages and the data that is there.

        Without a layout, all that it names counts as there.

        Raises UserError for an unknown key, task or language code, a dataset named twice, a bad value,
        data that is not there (one error for all of it; with `allow_missing` one warning instead, and
        the datasets concerned are left out whole), and for a mixture that leaves nothing to train on or
        nothing to select a checkpoint by: NothingThere when that is so for missing data.
        """
        cfg = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
        _check_keys(cfg)
        temperature, cap = _sampling(cfg.get("sampling") or {})
        named = _entries(cfg["train"], "train")
        if not named:
            raise UserError("mixture.train is empty: a run needs a dataset to train on")
        lacking = [file for one in named if (file := _lacking(layout, one, "train"))]
        trained = [one for one in named if not _lacking(layout, one, "train")] if allow_missing else named
        report = [get_task(task).name for task in cfg["report"]]

        evaluate = []
        for attributes in _entries(cfg["evaluate"], "evaluate"):
            dataset = Dataset(attributes, seen=_seen(attributes, trained))
            splits = ["validation", "test"] if _selects(dataset, report) else ["test"]
            gone = [file for split in splits if (file := _lacking(layout, attributes, split))]
            lacking += gone
            if not gone:
                evaluate.append(dataset)
        if lacking and not allow_missing:
            raise UserError(
                f"mixture {cfg['name']!r} names {len(lacking)} files that {layout.root} lacks: "
                f"{_grouped(lacking)}; add them, take them out of the mixture, "
                "or set data.allow_missing=true to go on without them"
            )
        if lacking:
            _log.warning(
                "mixture %s: going on without %d files that %s lacks: %s",
                cfg["name"], len(lacking), layout.root, _grouped(lacking),
            )  # fmt: skip
        if not trained:
            raise NothingThere(f"mixture {cfg['name']!r}: {layout.root} holds none of its training data")
        if not any(_selects(dataset, report) for dataset in evaluate):
            raise (NothingThere if lacking else UserError)(
                f"mixture {cfg['name']!r}: no dataset of the tasks in report ({', '.join(report)}) is both "
                "trained and evaluated, so no checkpoint can be selected; add one to evaluate"
            )
        return cls(
            name=cfg["name"],
            ranks=cfg["ranks"],
            train=[Dataset(attributes, seen="seen") for attributes in trained],
            evaluate=evaluate,
            report=report,
            temperature=temperature,
            cap=cap,
            missing=lacking,
        )

    def of_tests(self, layout: Layout) -> "Mixture":
        """Give this mixture with every test set of a folder in the place of what it evaluates.

        Each is tagged by what this mixture trains; its attributes are those that this mixture has for it.
        Raises UserError for a file that is called after no language, and a folder without a test set.
        """
        known = {(one.task, one.language): one.attributes for one in (*self.evaluate, *self.train)}
        trained = [one.attributes for one in self.train]
        evaluate = []
        for task, language in layout.datasets("test"):
            try:
                language_name(language)
            except UserError as error:
                raise UserError(f"{layout.path(task, 'test', language)}: {error}") from None
            plain = {"task": task, "language": language, "shared": SHARED}
            attributes = known.get((task, language), plain)
            evaluate.append(Dataset(attributes, _seen(attributes, trained)))
        if not evaluate:
            raise UserError(f"{layout.root}: no <task>/test/<language>.jsonl to evaluate")
        return replace(self, evaluate=evaluate, missing=[])

    def datasets(self, split: str) -> dict[int, Dataset]:
        """Give the datasets that a split covers, by their index in `train` (split train) or `evaluate`.

        Validation covers the seen datasets of the reported tasks only: selection sees nothing else.
        """
        if split == "train":
            return dict(enumerate(self.train))
        return {
            index: dataset
            for index, dataset in enumerate(self.evaluate)
            if split == "test" or _selects(dataset, self.report)
        }

    def paths(self, layout: Layout) -> list[Path]:
        """Give every file that a run of this mixture reads, in a fixed order."""
        return [
            layout.path(dataset.task, split, dataset.language)
            for split in ("train", "validation", "test")
            for dataset in self.datasets(split).values()
        ]

    def texts(self, layout: Layout) -> Iterator[str]:
        """Give every prompted input and every target that a run of this mixture reads."""
        for split in ("train", "validation", "test"):
            for dataset in self.datasets(split).values():
                for example in layout.read(dataset.task, split, dataset.language):
                    yield from (example.input, example.target)

    def fingerprint(self, layout: Layout) -> str:
        """Give a SHA-256 (hex) over what makes `texts`: the files, and the code that writes the prompts."""
        total = hashlib.sha256(layout.fingerprint(self.paths(layout)).encode())
        for module in (tasks, languages, layouts):
            total.update(Path(module.__file__).read_bytes())
        return total.hexdigest()

    def trained_attributes(self, layout: Layout, kinds: Iterable[str]) -> list[dict[str, str]]:
        """Give the attributes that are trained on, kind -> name: one entry for each combination there is.

        A kind that the mixture does not say is read from the lines of the training files, so that one
        dataset may give several entries. Raises UserError when neither carries a kind.
        """
        found: dict[frozenset[tuple[str, str]], dict[str, str]] = {}
        for dataset in self.train:
            unsaid = [kind for kind in kinds if kind not in dataset.attributes]
            lines = layout.read(dataset.task, "train", dataset.language)
            for more in (dataset.describe(line, unsaid) for line in lines) if unsaid else [{}]:
                attributes = {**dataset.attributes, **more}
                found.setdefault(frozenset(attributes.items()), attributes)
        return list(found.values())


def _check_keys(cfg: Mapping[str, Any]) -> None:
    for key in cfg:
        if key not in _KEYS and key not in _PARAMETERS:
            hint = did_you_mean(key, _KEYS)
            raise UserError(f"mixture.{key}: no such key; {hint}keys are {', '.join(sorted(_KEYS))}")
    for key, kind in _KEYS.items():
        kind.require(f"mixture.{key}", cfg.get(key))


def _sampling(cfg: Mapping[str, Any]) -> tuple[float, int | None]:
    if unknown := set(cfg) - {"temperature", "cap"}:
        raise UserError(f"mixture.sampling.{min(unknown)}: no such key; keys are temperature, cap")
    temperature, cap = cfg.get("temperature", math.inf), cfg.get("cap")
    _TEMPERATURE.require("mixture.sampling.temperature", temperature)
    _CAP.require("mixture.sampling.cap", cap)
    return float(temperature), cap


def _entries(entries: Sequence[Mapping[str, Any]], where: str) -> list[dict[str, str]]:
    """Give the attributes of every dataset that a list of the YAML names."""
    found = []
    for number, entry in enumerate(entries):
        place = f"mixture.{where}[{number}]"
        if not isinstance(entry, Mapping) or "task" not in entry or not entry.get("languages"):
            raise UserError(f"{place}: {entry!r} needs `task` and a list `languages`")
        if reserved := [kind for kind in _GIVEN_KINDS[1:] if kind in entry]:
            raise UserError(
                f"{place}.{reserved[0]}: the data gives this kind itself; entries say `languages`"
            )
        if wrong := [kind for kind in entry if not isinstance(kind, str) or ":" in kind]:
            raise UserError(f"{place}: {wrong[0]!r} is no name of a kind: a text without a colon is needed")
        task = get_task(entry["task"]).name
        for language in _languages(entry["languages"], f"{place}.languages"):
            found.append(
                {
                    "task": task,
                    "language": language,
                    "shared": SHARED,
                    **{
                        kind: _attribute(value, language, f"{place}.{kind}")
                        for kind, value in entry.items()
                        if kind not in ("task", "languages")
                    },
                }
            )
    counts = Counter((one["task"], one["language"]) for one in found)
    if twice := [f"{task}/{language}" for (task, language), count in counts.items() if count > 1]:
        raise UserError(f"mixture.{where} names datasets more than once: {', '.join(twice)}")
    return found


def _languages(codes: Any, place: str) -> list[str]:
    if isinstance(codes, str) or not isinstance(codes, Sequence):
        raise UserError(f"{place}: {codes!r} is not a list of language codes")
    for code in codes:
        if code is False:
            raise UserError(f'{place}: YAML reads an unquoted no as false; write "no" in quotes')
        if not isinstance(code, str):
            raise UserError(f"{place}: {code!r} is not a string; write the language code in quotes")
        if not is_known(code):
            try:
                language_name(code)
            except UserError as error:
                raise UserError(f"{place}: {error}") from None
    return list(codes)


def _attribute(value: Any, language: str, place: str) -> str:
    if isinstance(value, Mapping):
        if language not in value:
            raise UserError(f"{place}: says nothing for {language!r}, which the entry's languages name")
        value = value[language]
    if not isinstance(value, str) or not value:
        raise UserError(
            f"{place}: {value!r} is not a string; an attribute is a string or a mapping language: string"
        )
    return value


def _lacking(layout: Layout | None, attributes: Mapping[str, str], split: str) -> str | None:
    """Give the file below the root that is not there, if it is not."""
    task, language = attributes["task"], attributes["language"]
    if layout is None or layout.has(task, split, language):
        return None
    return layout.path(task, split, language).relative_to(layout.root).as_posix()


def _grouped(files: Sequence[str]) -> str:
    """Give files in one short line: `ner/train (am bm); ner/test (am)`."""
    folders: dict[str, list[str]] = {}
    for file in files:
        folder, name = file.rsplit("/", 1)
        folders.setdefault(folder, []).append(name.removesuffix(".jsonl"))
    return "; ".join(f"{folder} ({' '.join(names)})" for folder, names in folders.items())


def _seen(attributes: Mapping[str, str], trained: Sequence[Mapping[str, str]]) -> str:
    if any(attributes.items() <= one.items() for one in trained):
        return "seen"
    for kind, name in attributes.items():
        if all(one.get(kind) != name for one in trained):
            return f"unseen_{kind}"
    return "unseen_combination"


def _selects(dataset: Dataset, report: Sequence[str]) -> bool:
    return dataset.seen == "seen" and dataset.task in report
