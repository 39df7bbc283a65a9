"""The numbers that the paper prints (Tables 1-50), with the cells that its own pages contradict marked."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

from omegaconf import OmegaConf


@dataclass(frozen=True)
class Doubt:
    """A note on cells of one table; `rows` or `columns` left empty means all of them."""

    note: str
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def covers(self, row: str, column: str) -> bool:
        """Whether the cell is one of those doubted."""
        return (not self.rows or row in self.rows) and (not self.columns or column in self.columns)


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper.

    Attributes:
        number: as in the paper.
        caption: as in the paper.
        columns: heads, in the paper's order; validation and test from Table 6 on.
        rows: row name -> column -> number, in the paper's order; languages by the data's codes. From Table 6
            on the last row, "average", is the paper's own average.
        doubts: the cells that another place of the paper contradicts.
    """

    number: int
    caption: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, float]]
    doubts: tuple[Doubt, ...]

    def doubt(self, row: str, column: str) -> str | None:
        """The note on a doubtful cell, None for any other."""
        return next((doubt.note for doubt in self.doubts if doubt.covers(row, column)), None)


def table(number: int) -> PaperTable:
    """The paper's table of that number, 1-50.

    Raises:
        KeyError: the paper has no such table.
    """
    return _tables()[number]


@cache
def _tables() -> dict[int, PaperTable]:
    with as_file(files("flix_lightning.reports") / "paper_tables.yaml") as path:
        entries = OmegaConf.to_container(OmegaConf.load(path))
    return {number: _table(number, entry) for number, entry in entries.items()}


def _table(number: int, entry: dict) -> PaperTable:
    columns = tuple(entry["columns"])
    return PaperTable(
        number=number,
        caption=entry["caption"],
        columns=columns,
        rows={name: dict(zip(columns, row, strict=True)) for name, row in entry["rows"].items()},
        doubts=tuple(
            Doubt(doubt["note"], tuple(doubt.get("rows", ())), tuple(doubt.get("columns", ())))
            for doubt in entry.get("doubtful", ())
        ),
    )
