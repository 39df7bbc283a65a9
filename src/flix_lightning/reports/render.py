"""Tables: printed in the terminal, and saved as Markdown and as a PNG."""

import io
import textwrap
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from rich import box
from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

from flix_lightning.common.files import write_atomic

# Both fonts come with matplotlib, so that a picture is the same everywhere.
FONT = {"font.family": "DejaVu Sans", "font.size": 9, "text.parse_math": False}
_MONOSPACED = FONT | {"font.family": "DejaVu Sans Mono"}
_CHARACTER, _LINE = 9 * 0.602 / 72, 0.165  # inches that a character and a line take in a picture


class Best(str):
    """A cell that holds the best score of its column; every output shows it in bold."""


@dataclass(frozen=True)
class Column:
    """A column's head; neighbours with the same `group` stand under one heading."""

    head: str
    group: str = ""


@dataclass(frozen=True)
class Section:
    """Lines that belong together: each is a name and one text for each further column."""

    title: str
    lines: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Table:
    """Sections that share their columns, and footnotes. The first column holds the lines' names."""

    title: str
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]
    footnotes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """Tables that are read together, warnings that must be read before them, and whether a check failed."""

    tables: tuple[Table, ...]
    warnings: tuple[str, ...] = ()
    failed: bool = False

    def __rich__(self) -> Group:
        """What rich prints."""
        parts = [Text(warning, "bold yellow") for warning in self.warnings]
        for table in self.tables:
            parts += [_rich_table(table), *(Text(note, "dim") for note in table.footnotes), Text()]
        return Group(*parts)

    def terminal(self, console: Console) -> None:
        """Print the report; a file or pipe gets the tables' full width, so that no number is cut."""
        console.print(self, width=None if console.is_terminal else self._width(console), crop=False)

    def _width(self, console: Console) -> int:
        """Characters that the widest table takes when nothing is folded."""
        options = console.options.update(max_width=10_000)
        return max(console.measure(_rich_table(table), options=options).maximum for table in self.tables)

    def markdown(self) -> str:
        """Return the report as GitHub-flavoured Markdown."""
        parts = [f"**{warning}**\n" for warning in self.warnings]
        return "\n".join([*parts, *map(_markdown, self.tables)])

    def png(self, path: Path) -> None:
        """Draw what a wide terminal shows into a PNG file; raises UserError as `write_atomic`."""
        console = Console(file=io.StringIO())
        width = self._width(console)
        lines = console.render_lines(self, console.options.update(width=width))
        with rc_context(_MONOSPACED):
            figure = Figure(figsize=((width + 2) * _CHARACTER, (len(lines) + 2) * _LINE))
            for number, line in enumerate(lines, start=1):
                left = 1
                for text, style, _ in line:
                    if text.strip():
                        weight = "bold" if style and style.bold else "normal"
                        place = left / (width + 2), 1 - (number + 0.5) / (len(lines) + 2)
                        figure.text(*place, text, weight=weight, va="center")
                    left += len(text)
        write_atomic(path, png_bytes(figure))


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def save(report: Report, folder: Path, name: str) -> None:
    """Write `<folder>/<name>.md` and `.png`, each whole or not at all; raises UserError if that fails."""
    write_atomic(folder / f"{name}.md", report.markdown())
    report.png(folder / f"{name}.png")


def _rich_table(table: Table) -> RichTable:
    drawn = RichTable(
        title=Text(table.title, "bold"), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for index, column in enumerate(table.columns):
        head = "\n".join([column.group, *textwrap.wrap(column.head, 14, break_long_words=False)]).strip()
        # A narrow terminal folds numbers and heads, but never cuts them.
        drawn.add_column(Text(head), justify="right" if index else "left", no_wrap=not index, overflow="fold")
    for section in table.sections:
        if section.title:
            drawn.add_row(Text(section.title, "bold"))
        for line in section.lines:
            drawn.add_row(*(Text(cell, "bold" if isinstance(cell, Best) else "") for cell in line))
        drawn.add_section()
    return drawn


def _markdown(table: Table) -> str:
    def line(cells):
        texts = (f"**{cell}**" if isinstance(cell, Best) else cell for cell in cells)
        return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"

    heads = [f"{column.group}<br>{column.head}".removeprefix("<br>") for column in table.columns]
    lines = [f"### {table.title}", "", line(heads), line([":--"] + ["--:"] * (len(heads) - 1))]
    for section in table.sections:
        if section.title:
            lines.append(line([Best(section.title)] + [""] * (len(heads) - 1)))
        lines += map(line, section.lines)
    notes = "".join(f"\n{note}\n" for note in table.footnotes)
    return "\n".join(lines) + "\n" + notes
