"""Data that the `datasets` library reads, from a hub or local files, written to the layout once.

data=hub '+data.root.sources.ner={path:FOLDER_OR_NAME,languages:[sw],columns:{text:sentence,target:labels}}'
"""

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, Self

import datasets

from flix_lightning.common import settings
from flix_lightning.common.errors import UserError, did_you_mean, one_line
from flix_lightning.common.files import make_folder, make_once, sha256
from flix_lightning.common.names import check_name, text_keys
from flix_lightning.data.layout import SPLITS, Layout, is_hidden
from flix_lightning.data.mixture_config import check_code
from flix_lightning.tasks.definitions import Task, Tasks

_log = logging.getLogger(__name__)

#: Raise it when the same source gives other files.
VERSION = 1

_OPTIONAL = settings.nullable(settings.TEXT)
_MAPPING = settings.nullable(settings.MAPPING)
_FILES = settings.list_of(settings.TEXT, "a path, or a list of paths,")
#: What the keys of a source may be; docs/data-and-models.md explains them.
_KEYS = {
    "path": settings.TEXT,
    "name": _OPTIONAL,
    "revision": _OPTIONAL,
    "data_files": _MAPPING,
    "languages": settings.ANY,  # checked by `_languages`
    "language_column": _OPTIONAL,
    "splits": _MAPPING,
    "columns": _MAPPING,
}


def ensure(root: str, sources: Mapping[str, Any], tasks: Mapping[str, Any] | None = None) -> Path:
    """Return the folder of the layout below `root`; write it first if it is not there.

    Its name depends on the sources and on the content of local files, so that a changed file is read again.
    `sources` is task -> its source, by the keys of `_KEYS`; `tasks` are as `Tasks.of` takes them.

    Raises:
        UserError: A source is malformed or cannot be loaded; or it lacks a split or a column, naming what it
            has; or a value is no text.
    """
    sources, tasks = settings.plain(sources), Tasks.of(settings.plain(tasks))
    if not sources:
        raise UserError("data.root.sources is empty; for each task, {path: …, languages: […]} is needed")
    parsed = [_Source.parse(tasks.get(name), source) for name, source in sources.items()]
    depends_on = [VERSION, [[one.task.deciding(), one.spec, one.local_files()] for one in parsed]]
    digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]

    def write(draft: Path) -> None:
        # With a cache of its own, `datasets` never takes an older version of a local file.
        with tempfile.TemporaryDirectory(prefix=".cache-", dir=draft) as cache:
            for source in parsed:
                source.write(Layout(draft, tasks), cache)

    return make_once(Path(root) / f"hub-{digest}", write)


@dataclass(frozen=True)
class _Source:
    """Where the data of a task comes from.

    Attributes:
        spec: Its keys and values, as the config has them.
        languages: Code -> what the source calls the language; empty where a column has all codes.
        splits: Split of the layout -> split of the source, as datasets writes it (`train[:90%]`).
        columns: Key of a line -> column, or path in a column (`answers.text.0`); None is an empty text.
    """

    task: Task
    spec: dict[str, Any]
    languages: dict[str, str]
    splits: dict[str, str]
    columns: dict[str, str | None]

    @classmethod
    def parse(cls, task: Task, spec: Any) -> Self:
        place = f"data.root.sources.{task.name}"
        settings.MAPPING.require(place, spec)
        settings.check_keys(place, spec, _KEYS)
        splits = text_keys(f"{place}.splits", spec.get("splits") or {})
        if unknown := [split for split in splits if split not in SPLITS]:
            raise UserError(f"{place}.splits.{unknown[0]}: no such split; splits are {', '.join(SPLITS)}")
        columns = text_keys(f"{place}.columns", spec.get("columns") or {})
        for split, given in text_keys(f"{place}.data_files", spec.get("data_files") or {}).items():
            _FILES.require(f"{place}.data_files.{split}", [given] if isinstance(given, str) else given)
        for part, values in ("splits", splits.values()), ("columns", columns.values()):
            for value in values:
                _OPTIONAL.require(f"{place}.{part}", value)
        columns = {**{key: key for key in task.keys}, **columns}
        return cls(task, spec, _languages(place, spec), splits, columns)

    @property
    def place(self) -> str:
        return f"data.root.sources.{self.task.name}"

    def local_files(self) -> list[list[str]]:
        """Path and SHA-256 of every local file that the source may read."""
        files = set()
        for name in self.languages.values() or [""]:
            options = self._options(name)
            patterns = [options["path"]]
            for given in (options.get("data_files") or {}).values():
                patterns += [given] if isinstance(given, str) else given
            for pattern in patterns:
                path = Path(pattern)
                found = path.rglob("*") if path.is_dir() else map(Path, glob(pattern, recursive=True))
                files |= {one for one in [path, *found] if one.is_file() and not is_hidden(one.name)}
        return [[str(path), sha256(path)] for path in sorted(files)]

    def write(self, layout: Layout, cache: str) -> None:
        """Write the files of the task."""
        if self.spec.get("language_column"):
            self._write_by_column(layout, self._load("", cache))
            return
        for code, name in self.languages.items():
            for split, rows in self._load(name, cache).items():
                where = f"{self.place}: {split} of {code}"
                _write(layout.path(self.task.name, split, code), self._lines(rows, where))

    def _write_by_column(self, layout: Layout, splits: Mapping[str, datasets.Dataset]) -> None:
        column = self.spec["language_column"]
        codes = {name: code for code, name in self.languages.items()}
        for split, rows in splits.items():
            where = f"{self.place}: {split}"
            self._check_column(rows, column, "language_column", where)
            names = [_text(rows, column, row, f"{where}, row {n}") for n, row in enumerate(rows, start=1)]
            for name in dict.fromkeys(names):
                if codes and name not in codes:
                    continue
                code = codes.get(name, name)
                check_code(f"{where}: column {column}", code)
                own = rows.select([n for n, other in enumerate(names) if other == name])
                _write(layout.path(self.task.name, split, code), self._lines(own, f"{where} of {code}"))
            if lacking := [name for name in codes if name not in names]:
                found = ", ".join(sorted({*names}))
                _log.warning("%s: column %s has no %s; it has %s", where, column, ", ".join(lacking), found)

    def _load(self, language: str, cache: str) -> dict[str, datasets.Dataset]:
        """Load the splits, by their names in the layout."""
        options = self._options(language)
        where = f"{self.place}: {options['path']}" + (f" ({options['name']})" if options.get("name") else "")
        found = _load_dataset(where, **options, cache_dir=cache)
        wanted = self.splits or {split: split for split in SPLITS if split in found}
        if not wanted:
            raise UserError(f"{where} has none of {', '.join(SPLITS)}, but {', '.join(found)}; give splits")
        loaded = {}
        for split, expression in wanted.items():
            if expression is None:
                continue
            if expression.partition("[")[0] not in found:
                raise UserError(f"{where} has no split {expression!r} for {split}; it has {', '.join(found)}")
            loaded[split] = found.get(expression) or _load_dataset(
                where, **options, cache_dir=cache, split=expression
            )
        return loaded

    def _options(self, language: str) -> dict[str, Any]:
        """The arguments of `load_dataset`, with the name of a language in its place."""
        keys = ("path", "name", "revision", "data_files")
        given = {key: self.spec[key] for key in keys if self.spec.get(key)}
        filled = json.dumps(given).replace("{language}", json.dumps(language)[1:-1])
        return json.loads(filled)

    def _lines(self, rows: datasets.Dataset, where: str) -> Iterator[dict[str, str]]:
        for key, column in self.columns.items():
            if column is not None:
                self._check_column(rows, column, key, where)
        for number, row in enumerate(rows, start=1):
            place = f"{where}, row {number}"
            yield {
                key: "" if column is None else _text(rows, column, row, place, empty=key == self.task.target)
                for key, column in self.columns.items()
            }

    def _check_column(self, rows: datasets.Dataset, column: str, key: str, where: str) -> None:
        names = rows.column_names
        if column not in names and column.partition(".")[0] not in names:
            hint = did_you_mean(column, names)
            raise UserError(
                f"{where} has no column {column!r} for {key!r}; {hint}its columns are {', '.join(names)}; "
                f"{self.place}.columns.{key} names one"
            )


def _languages(place: str, spec: Mapping[str, Any]) -> dict[str, str]:
    given = languages = spec.get("languages")
    if given is None and spec.get("language_column"):
        return {}
    if isinstance(given, list):
        languages = {check_name(f"{place}.languages", code): code for code in given}
    if not isinstance(languages, Mapping) or not languages:
        raise UserError(
            f"{place}.languages is {given!r}; a list of codes is needed, or {{code: name in the source}}, or "
            "a language_column"
        )
    languages = text_keys(f"{place}.languages", languages)
    for code, name in languages.items():
        check_code(f"{place}.languages", code)
        check_name(f"{place}.languages.{code}", name)
    return languages


def _load_dataset(where: str, **options: Any) -> Any:
    try:
        return datasets.load_dataset(**options)
    except (OSError, ValueError, RuntimeError, TypeError, datasets.exceptions.DatasetsError) as error:
        reason = one_line(error.__cause__ or error)
        raise UserError(f"{where}: datasets cannot load it: {reason}") from error


def _text(
    rows: datasets.Dataset, column: str, row: Mapping[str, Any], where: str, empty: bool = False
) -> str:
    """Return a value as text: a label by its name, a number by its digits."""
    if column in row:
        value, feature = row[column], rows.features[column]
        if isinstance(feature, datasets.ClassLabel) and value is not None:
            return feature.int2str(value)
    else:
        value = row
        for part in column.split("."):
            try:
                value = value[int(part)] if isinstance(value, list) else value[part]
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise UserError(f"{where}: column {column!r} leads nowhere, at {part!r}") from error
    if isinstance(value, str):
        return value
    if type(value) in (int, float):
        return str(value)
    if value is None and empty:  # a CSV cannot tell an empty text from none
        return ""
    shown = json.dumps(value, default=str)[:60]
    hint = f"; an element has a name such as {column}.0" if isinstance(value, list | dict) else ""
    raise UserError(f"{where}: column {column!r} is {shown}; a text is needed{hint}")


def _write(path: Path, lines: Iterator[Mapping[str, str]]) -> None:
    make_folder(path.parent)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
