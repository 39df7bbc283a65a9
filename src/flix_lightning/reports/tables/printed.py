"""The paper's own numbers as they stand beside ours, the doubtful ones marked."""

from flix_lightning.reports.paper import PaperTable
from flix_lightning.reports.tables.scores import DASH


class Footnotes:
    """Marks for notes, in the order in which they are first needed; the same note has the same mark."""

    _MARKS = "†‡§¶"

    def __init__(self):
        self._notes: list[str] = []

    def mark(self, note: str | None) -> str:
        """The mark of `note`; none for no note."""
        if note is None:
            return ""
        if note not in self._notes:
            self._notes.append(note)
        return self._MARKS[self._notes.index(note)]

    @property
    def lines(self) -> tuple[str, ...]:
        """The notes so far, each behind its mark."""
        return tuple(f"{mark} Doubtful: {note}" for mark, note in zip(self._MARKS, self._notes, strict=False))


def printed_cell(table: PaperTable, row: str, column: str, footnotes: Footnotes) -> str:
    """A cell of the paper with the mark of its doubt, or a dash where the paper has none."""
    value = table.rows.get(row, {}).get(column)
    return DASH if value is None else f"{value:.1f}{footnotes.mark(table.doubt(row, column))}"
