"""A comparison of any runs: what differs between them, their scores, and FLix minus each other line."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from omegaconf import OmegaConf

from flix_lightning.common.settings import decides, plain
from flix_lightning.reports.columns import HEADS, ScoreColumn
from flix_lightning.reports.render import Report
from flix_lightning.reports.tables.appendix import datasets, datasets_report
from flix_lightning.reports.tables.methods import report
from flix_lightning.reports.tables.scores import Scores
from flix_lightning.runs.run import Run
from flix_lightning.runs.settings import SETTINGS

OURS = "FLix"

_METHOD, _MIXTURE, _RANKS = "flix.name", "mixture.name", "flix.ranks"
_HEADS = {_METHOD: "Method", _MIXTURE: "Trained on"}
#: Settings that only set another one, and the seed, over which a line is averaged.
_NOT_SHOWN = (
    "seed.",
    "flix.learning_rate.",
    "data.learning_rates.",
    "data.feature_dropout.",
    "data.rescale.",
    "mixture.ranks.",
)


@dataclass(frozen=True)
class Comparison:
    """Some runs. Those that differ in nothing but the seed are one line.

    Attributes:
        settings: head of a setting that differs -> its value in each line.
        scores: test scores by line, on the languages that all lines with scores of the column share.
        minus: line -> the line that it is subtracted from: FLix with the same other settings, or else the
            first line of FLix on the same mixture, or of FLix, or of any method.
        notes: which columns leave languages out, and which LoRAs do not match FLix.
    """

    settings: Mapping[str, Sequence[str]]
    scores: Scores
    minus: Mapping[str, str]
    notes: Sequence[str]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Self:
        """Compare one finished run or more.

        Raises:
            UserError: two runs have the same settings and seed, so they differ in their data or base.
        """
        found = _differing(runs)
        lines: dict[str, list[Run]] = {}
        values: dict[str, dict[str, str]] = {}  # line -> key -> value
        for run, *texts in zip(runs, *found.values(), strict=True):
            own = dict(zip(found, texts, strict=True))
            line = ", ".join(text if key in _HEADS else f"{_head(key)} {text}" for key, text in own.items())
            values[line] = own
            lines.setdefault(line, []).append(run)
        settings = {_head(key): [own[key] for own in values.values()] for key in found}
        columns, notes = _columns(lines)
        minus = _minus(lines, values)
        return cls(settings, Scores(columns, lines), minus, [*notes, *_unmatched(lines, minus)])

    def report(self, title: str) -> Report:
        """The macro averages of each line, and the differences."""
        shown = report(title, self.scores, minus=self.minus, settings=self.settings, notes=self.notes)
        return replace(shown, warnings=self.scores.gaps(whole=False))

    def languages_report(self) -> Report:
        """The languages behind each column, one table a column."""
        columns = [replace(column, languages=None) for column in self.scores.columns]
        tables = [datasets(one.head, one, self.scores.runs, splits=["test"]) for one in columns]
        return datasets_report(tables, self.scores.runs)


def scores_csv(runs: Sequence[Run]) -> str:
    """Every test score of some runs as CSV: the run, what differs between the runs, the result row."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    fields = ("seed", "task", "language", "seen", "active", "metric", "value", "n", "step")
    found = _differing(runs)
    writer.writerow(["run", *map(_head, found), *fields])
    for run, *values in zip(runs, *found.values(), strict=True):
        rows = (row for row in run.rows if row.split == "test")
        writer.writerows([run.name, *values, *(getattr(row, name) for name in fields)] for row in rows)
    return file.getvalue()


def _differing(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Settings that decide the result and differ -> value in each run; at least the method.

    A setting of `flix` or `mixture` counts only where it differs within one method and mixture: that FLix and
    LoRA have other ranks and learning rates is what the method means.
    """
    pairs = [(run.method, str(run.cfg.mixture.name)) for run in runs]
    names = dict(zip((_METHOD, _MIXTURE), map(list, zip(*pairs, strict=True)), strict=False))
    found = {key: values for key, values in names.items() if len(set(values)) > 1}
    flat = [_settings(run) for run in runs]
    for key in dict.fromkeys(key for settings in flat for key in settings):
        if not decides(key, SETTINGS) or f"{key}.".startswith(_NOT_SHOWN):
            continue
        values = [settings.get(key, "") for settings in flat]
        of_method = key.startswith(("flix.", "mixture.", "tasks.")) or key == "optimizer.learning_rate"
        owners = pairs if of_method else [None] * len(runs)
        if key not in names and len({*zip(owners, values, strict=True)}) > len({*owners}):
            found[key] = values
    return found or {_METHOD: names.get(_METHOD, [])}


def _settings(run: Run) -> dict[str, str]:
    """Return a run's settings as `_flatten` does, with the ranks of all kinds as one text."""
    cfg = plain(run.cfg)
    ranks = {**cfg["mixture"].get("ranks", {}), **cfg["flix"].pop("ranks", {})}
    listed = (f"{kind} {json.dumps(rank, ensure_ascii=False)}" for kind, rank in ranks.items() if rank)
    return {**_flatten(cfg), _RANKS: " + ".join(listed)}


def _flatten(value: Any, key: str = "") -> dict[str, str]:
    """Dotted key -> text of its value, without null and empty mappings: older runs lack newer keys."""
    if value is None:
        return {}
    if isinstance(value, dict):
        parts = [_flatten(part, f"{key}.{name}".removeprefix(".")) for name, part in value.items()]
        return {name: text for part in parts for name, text in part.items()}
    if isinstance(value, float):
        value = f"{value:g}"  # so that 0.0 is 0
    return {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}


def _head(key: str) -> str:
    return _HEADS.get(key, key.partition(".")[2])


def _minus(lines: Mapping[str, Sequence[Run]], values: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Line -> the line that it is subtracted from, if it shares a task with one."""
    tested = {line: {kind for run in alike for kind in _tested(run)} for line, alike in lines.items()}
    mixtures = {line: alike[0].cfg.mixture.name for line, alike in lines.items()}
    others = {line: {**own, _METHOD: None} for line, own in values.items()}
    candidates = [line for line, alike in lines.items() if alike[0].method == OURS] or [*lines]
    minus = {}
    for line in lines:
        same = [] if line in candidates else [one for one in candidates if others[one] == others[line]]
        on_mixture = [one for one in candidates if mixtures[one] == mixtures[line]]
        for one in (*same, *on_mixture[:1], candidates[0]):
            if one != line and tested[one] & tested[line]:
                minus.setdefault(line, one)
    return minus


#: What a LoRA's rank is worked out from -> the fact in which it must then be FLix's equal, and its name.
_MATCHED = {"max_active": ("rank", "active rank"), "total": ("total_parameters", "parameters")}


def _unmatched(lines: Mapping[str, Sequence[Run]], minus: Mapping[str, str]) -> list[str]:
    """Notes on LoRAs that were trained with another table of ranks than FLix."""
    notes = []
    for line, other in minus.items():
        lora, flix = lines[line][0], lines[other][0]
        rank = OmegaConf.select(lora.cfg, "flix.lora_rank")
        if flix.method != OURS or rank not in _MATCHED or lora.cfg.mixture.name != flix.cfg.mixture.name:
            continue
        fact, name = _MATCHED[rank]
        if lora.facts[fact] != flix.facts[fact]:
            notes.append(
                f"{line} does not match {other}: {name} {lora.facts[fact]:,.0f} and {flix.facts[fact]:,.0f}; "
                "train both with the same mixture.ranks and flix.ranks."
            )
    return notes


def _tested(run: Run) -> dict[tuple[str, str], set[str]]:
    """(task, seen) -> the languages that a run was tested on."""
    found: dict[tuple[str, str], set[str]] = {}
    for row in run.rows:
        if row.split == "test" and row.active == "all":
            found.setdefault((row.task, row.seen), set()).add(row.language)
    return found


def _columns(lines: Mapping[str, Sequence[Run]]) -> tuple[list[ScoreColumn], list[str]]:
    """A column for each task and kind of evaluation, on shared languages; notes on the others."""
    tested: dict[tuple[str, str], list[set[str]]] = {}
    for alike in lines.values():
        found: dict[tuple[str, str], set[str]] = {}
        for kind, languages in (item for run in alike for item in _tested(run).items()):
            found[kind] = found.get(kind, set()) | languages
        for kind, languages in found.items():
            tested.setdefault(kind, []).append(languages)
    columns, notes = [], []
    for (task, seen), by_line in sorted(tested.items(), key=lambda item: item[0][1] != "seen"):
        head, group = HEADS.get(task, task.replace("_", " ")), ""
        if seen != "seen":
            head, group = f"{seen.replace('_', ' ').capitalize()}: {head}", "Zero-shot"
        every, shared = set.union(*by_line), set.intersection(*by_line)
        if shared and shared != every:
            notes.append(f"{head}: on the {len(shared)} of {len(every)} languages that all lines share.")
        columns.append(ScoreColumn(head, task, seen, None, group, languages=frozenset(shared) or None))
    return columns, notes
