"""The numbers that the paper prints (Tables 1-50), with the cells that its own pages contradict marked."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

DASH = "—"
"""Stands in a table where there is no number."""


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper.

    Attributes:
        caption: as in the paper.
        columns: heads, in the paper's order; validation and test from Table 6 on.
        lines: name -> column -> number, in the paper's order; languages by the data's codes. From Table 6 on
            the last line, "average", is the paper's own average.
        doubtful: notes on cells that another place of the paper contradicts, as in `paper_tables.yaml`.
        remarks: on what the paper's text says of the table.
    """

    caption: str
    columns: list[str]
    lines: Mapping[str, Mapping[str, float]]
    doubtful: list[Mapping[str, Any]]
    remarks: list[str]

    def notes(self, line: str, column: str) -> list[str]:
        """The notes on a doubtful cell, none for any other."""
        return [
            doubt["note"]
            for doubt in self.doubtful
            if line in doubt.get("rows", [line]) and column in doubt.get("columns", [column])
        ]


@cache
def table(number: int) -> PaperTable:
    """The paper's table of that number, 1-50; KeyError for any other number."""
    entry = _entries()[number]
    columns = entry["columns"]
    lines = {name: dict(zip(columns, line, strict=True)) for name, line in entry["rows"].items()}
    more = [entry.get(key, []) for key in ("doubtful", "remarks")]
    return PaperTable(entry["caption"], columns, lines, *more)


@cache
def _entries() -> dict[int, dict[str, Any]]:
    return yaml.safe_load((files("flix_lightning.reports") / "paper_tables.yaml").read_text("utf-8"))


class Footnotes:
    """Marks for notes, in the order in which they are first needed; the same note has the same mark."""

    _MARKS = "†‡§¶‖#"

    def __init__(self, *tables: PaperTable):
        """The remarks on `tables` come after the notes."""
        self._notes: dict[str, str] = {}
        self._remarks = dict.fromkeys(remark for table in tables for remark in table.remarks)

    def cell(self, table: PaperTable, line: str, column: str) -> str:
        """A cell of the paper with the marks of its notes, or a dash where the paper has none."""
        value = table.lines.get(line, {}).get(column)
        if value is None:
            return DASH
        notes = table.notes(line, column)
        return f"{value:.1f}" + "".join(
            self._notes.setdefault(note, self._MARKS[len(self._notes) % len(self._MARKS)]) for note in notes
        )

    @property
    def lines(self) -> tuple[str, ...]:
        """The notes so far, each behind its mark, and the remarks."""
        notes = (f"{mark} Doubtful: {note}" for note, mark in self._notes.items())
        return (*notes, *(f"On the paper: {remark}" for remark in self._remarks))
