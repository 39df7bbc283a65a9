"""Which datasets of the data a run trains on and which it evaluates."""

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flix_lightning.common.errors import UserError, list_names
from flix_lightning.common.settings import plain
from flix_lightning.data.attributes import Attribute, known_attributes
from flix_lightning.data.layout import SPLITS, Example, Layout
from flix_lightning.data.mixture_config import SHARED, check_code, parse_entries, parse_mixture
from flix_lightning.tasks.definitions import Tasks

_log = logging.getLogger(__name__)

ALL = "all"  # in a mixture: everything that the data holds


class NothingThere(UserError):  # noqa: N818 - a state of the data, where data may be missing
    """With `allow_missing`, the data holds nothing that this mixture could train on or select by."""


@dataclass(frozen=True)
class Dataset:
    """One task in one language.

    Attributes:
        attributes: kind -> name; always with task, language and shared.
        seen: `seen` when the dataset is trained on; `unseen_<kind>` when no trained dataset has its name of
            that kind (the first such kind); else `unseen_combination` (paper §3.2).
    """

    attributes: dict[str, str]
    seen: str

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.attributes["task"]

    @property
    def language(self) -> str:
        """The code of the language."""
        return self.attributes["language"]

    def describe(self, example: Example, kinds: Iterable[str]) -> dict[str, str]:
        """Return kind -> name of an example. The mixture's attributes come before the line's own keys.

        Raises:
            UserError: Neither has a kind, or the line's value is not a string with characters.
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
    """A mixture whose datasets are in the data.

    Attributes:
        name: What results call this mixture.
        ranks: FLix's ranks for this mixture, kind -> rank, as the YAML says them.
        attributes: Kinds that follow from others, for all datasets.
        train, evaluate: Datasets in the order of the YAML.
        report: Names of the tasks that a table reports.
        temperature, cap: How datasets are sampled (see `flix_lightning.data.batches.mixing_rates`).
    """

    name: str
    ranks: dict[str, Any]
    attributes: list[Attribute]
    train: list[Dataset]
    evaluate: list[Dataset]
    report: list[str]
    temperature: float
    cap: int | None

    @classmethod
    def resolve(
        cls,
        cfg: Mapping[str, Any],
        layout: Layout | None,
        allow_missing: bool = False,
        tasks: Tasks | None = None,
    ) -> "Mixture":
        """Check a mixture's config (see `parse_mixture`), and look up its datasets in the data.

        Args:
            layout: The data. None: every dataset counts as present (for a run whose data is gone).
            allow_missing: Whether a dataset that lacks files is left out, with one warning for all.
            tasks: The known tasks. None is those of the layout, or the shipped ones.

        Raises:
            UserError: As `parse_mixture`; or files are missing (one error for all); or no dataset can select
                a checkpoint.
            NothingThere: Files may be missing, and the others leave nothing to train on or to select by.
        """
        tasks = tasks or (layout.tasks if layout else Tasks.of())
        config = parse_mixture(cfg, tasks)
        name, report = config["name"], config["report"]
        trained, evaluate, missing = [], [], []
        for attributes in config["train"]:
            files = _missing(layout, attributes, ["train"])
            missing += files
            if not (files and allow_missing):
                trained.append(attributes)
        tags = _Tags(trained)
        for attributes in config["evaluate"]:
            dataset = Dataset(attributes, tags.seen(attributes))
            splits = ["validation", "test"] if _selects(dataset, report) else ["test"]
            files = _missing(layout, attributes, splits)
            missing += files
            if not files:
                evaluate.append(dataset)
        if missing:
            lacking = f"{len(missing)} files that {layout.root} lacks: {_list_files(missing)}"
            if not allow_missing:
                raise UserError(
                    f"mixture {name!r} names {lacking}; add them, take them out of the mixture, set "
                    "data.allow_missing=true to go on without them, or mixture=all to take what there is"
                )
            _log.warning("mixture %s: going on without %s", name, lacking)
            named = {(one["task"], one["language"]) for one in (*config["train"], *config["evaluate"])}
            _log_unused(name, layout, lambda split, dataset: dataset in named)
        if not trained:
            raise NothingThere(f"mixture {name!r}: {layout.root} holds none of its training data")
        if not any(_selects(dataset, report) for dataset in evaluate):
            raise (NothingThere if missing else UserError)(
                f"mixture {name!r}: no dataset of the tasks in report ({', '.join(report)}) is both trained "
                "and evaluated, so no checkpoint can be selected; add one to evaluate"
            )
        train = [Dataset(attributes, "seen") for attributes in trained]
        tasks.warn_of_codes(dataset.language for dataset in (*train, *evaluate))
        return cls(**{**config, "train": train, "evaluate": evaluate})

    def evaluating(self, layout: Layout, split: str) -> "Mixture":
        """Return this mixture with all datasets of a split of `layout` in place of what it evaluates.

        A dataset that this mixture names keeps its attributes. All are tagged by what this mixture trains.

        Raises:
            UserError: A file's name is not a code of a language, or no dataset has the split.
        """
        attributes = {(one.task, one.language): one.attributes for one in (*self.evaluate, *self.train)}
        tags = _Tags([one.attributes for one in self.train])
        evaluate = []
        for task, language in layout.datasets(split):
            check_code(str(layout.path(task, split, language)), language)
            plain = {"task": task, "language": language, "shared": SHARED}
            own = attributes.get((task, language)) or known_attributes(plain, self.attributes)
            evaluate.append(Dataset(own, tags.seen(own)))
        if not evaluate:
            raise UserError(f"{layout.root}: no <task>/{split}/<language>.jsonl to evaluate")
        layout.tasks.warn_of_codes(dataset.language for dataset in evaluate)
        return replace(self, evaluate=evaluate)

    def datasets(self, split: str) -> dict[int, Dataset]:
        """Return the datasets of a split by their index in `train` (split train) or `evaluate`.

        Validation has the seen datasets of the reported tasks only. Selection sees nothing else.
        """
        if split == "train":
            return dict(enumerate(self.train))
        return {
            index: dataset
            for index, dataset in enumerate(self.evaluate)
            if split == "test" or _selects(dataset, self.report)
        }

    def paths(self, layout: Layout) -> list[Path]:
        """Return all files that a run of this mixture reads, in a fixed order."""
        return [layout.path(dataset.task, split, dataset.language) for split, dataset in self._splits()]

    def texts(self, layout: Layout) -> Iterator[str]:
        """Yield all prompted inputs and targets that a run of this mixture reads."""
        for split, dataset in self._splits():
            for example in layout.read(dataset.task, split, dataset.language):
                yield from (example.input, example.target)

    def fingerprint(self, layout: Layout) -> str:
        """Return a SHA-256 (hex) of all that `texts` depends on."""
        prompts = [layout.tasks.render_key(one.task, one.language) for _, one in self._splits()]
        depends_on = [layout.fingerprint(self.paths(layout)), prompts]
        return hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()

    def trained_attributes(self, layout: Layout, kinds: Iterable[str]) -> list[dict[str, str]]:
        """Return the attributes, kind -> name, of each combination that is trained on.

        A kind that the mixture does not say is read from the lines of the training files. Then one dataset
        may have several combinations. Raises UserError as `Dataset.describe`.
        """
        found: dict[frozenset[tuple[str, str]], dict[str, str]] = {}
        for dataset in self.train:
            of_lines = [kind for kind in kinds if kind not in dataset.attributes]
            lines = layout.read(dataset.task, "train", dataset.language)
            for more in (dataset.describe(line, of_lines) for line in lines) if of_lines else [{}]:
                attributes = {**dataset.attributes, **more}
                found.setdefault(frozenset(attributes.items()), attributes)
        return list(found.values())

    def _splits(self) -> Iterator[tuple[str, Dataset]]:
        for split in SPLITS:
            for dataset in self.datasets(split).values():
                yield split, dataset


def list_all(cfg: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """Return key -> list for each key that says `all` in a mixture's config; log what the lists leave out.

    `train` gets each dataset with training data. `evaluate` gets each with test data, and with validation
    data if it is trained on. `report` gets the tasks of the datasets that are trained on and validated.
    """
    wanted = [key for key in ("train", "evaluate", "report") if cfg.get(key) == ALL]
    if not wanted:
        return {}
    found = {split: dict.fromkeys(layout.datasets(split)) for split in SPLITS}
    trained = found["train"] if "train" in wanted else _named("mixture.train", cfg["train"], layout.tasks)
    evaluated = {one: None for one in found["test"] if one not in trained or one in found["validation"]}
    if "evaluate" not in wanted:
        evaluated = _named("mixture.evaluate", cfg["evaluate"], layout.tasks)
    validated = {one: None for one in evaluated if one in trained}
    used = {"train": trained, "validation": validated, "test": evaluated}
    _log_unused(cfg["name"], layout, lambda split, dataset: dataset in used[split])
    tasks = list(dict.fromkeys(task for task, _ in validated))
    lists = {"train": _entries(trained), "evaluate": _entries(evaluated), "report": tasks}
    return {key: lists[key] for key in wanted}


def _entries(datasets: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return the entries of a mixture's list that name these datasets, (task, language)."""
    languages = defaultdict(list)
    for task, language in datasets:
        languages[task].append(language)
    return [{"task": task, "languages": codes} for task, codes in languages.items()]


def _named(place: str, entries: Any, tasks: Tasks) -> dict[tuple[str, str], None]:
    return {(one["task"], one["language"]): None for one in parse_entries(place, plain(entries), tasks)}


def _log_unused(name: str, layout: Layout, is_used: Callable[[str, tuple[str, str]], bool]) -> None:
    """Log the files of the data that a mixture does not use, and the folders that are no task's."""
    files = [
        layout.path(task, split, language).relative_to(layout.root).as_posix()
        for split in SPLITS
        for task, language in layout.datasets(split)
        if not is_used(split, (task, language))
    ]
    if files:
        _log.warning(
            "mixture %s: %d files of %s are not used: %s", name, len(files), layout.root, _list_files(files)
        )
    if unknown := layout.unknown_tasks():
        _log.warning(
            "mixture %s: folders of %s that are no task's are not used: %s; a task is a file task/NAME.yaml",
            name, layout.root, list_names(unknown, 20),
        )  # fmt: skip


class _Tags:
    """Tags datasets by what is trained (`Dataset.seen`), each in constant time."""

    def __init__(self, trained: Sequence[Mapping[str, str]]):
        self._trained = {(one["task"], one["language"]): one.items() for one in trained}
        self._names: dict[str, set[str]] = defaultdict(set)
        for kind, name in (item for one in trained for item in one.items()):
            self._names[kind].add(name)

    def seen(self, attributes: Mapping[str, str]) -> str:
        if attributes.items() <= self._trained.get((attributes["task"], attributes["language"]), {}.items()):
            return "seen"
        new = (kind for kind, name in attributes.items() if name not in self._names[kind])
        return next((f"unseen_{kind}" for kind in new), "unseen_combination")


def _selects(dataset: Dataset, report: Sequence[str]) -> bool:
    return dataset.seen == "seen" and dataset.task in report


def _missing(layout: Layout | None, attributes: Mapping[str, str], splits: Sequence[str]) -> list[str]:
    """Return the files, below the root, of those splits that are not there."""
    if layout is None:
        return []
    paths = [layout.path(attributes["task"], split, attributes["language"]) for split in splits]
    return [path.relative_to(layout.root).as_posix() for path in paths if not path.is_file()]


def _list_files(files: Sequence[str]) -> str:
    """List files in one short line: `ner/train (am bm); ner/test (am)`."""
    folders: dict[str, list[str]] = defaultdict(list)
    for folder, _, name in (file.rpartition("/") for file in files):
        folders[folder].append(name.removesuffix(".jsonl"))
    return "; ".join(f"{folder} ({' '.join(names)})" for folder, names in folders.items())
