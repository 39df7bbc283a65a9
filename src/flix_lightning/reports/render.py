"""A table of texts, drawn in the terminal, as Markdown and as a PNG."""

import io
import textwrap
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from flix_lightning.common.files import write_atomic

# DejaVu Sans comes with matplotlib, so that a picture is the same everywhere.
FONT = {"font.family": "DejaVu Sans", "font.size": 9}


@dataclass(frozen=True)
class Column:
    """A column's head; neighbours that share a `group` stand under one heading."""

    head: str
    group: str = ""


@dataclass(frozen=True)
class Section:
    """Rows that belong together: each a name and one text a column."""

    title: str
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Table:
    """Sections of rows under the same columns (the first column holds the rows' names), and footnotes."""

    title: str
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]
    footnotes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """Tables that are read together, below what the reader must know before reading them."""

    tables: tuple[Table, ...]
    warnings: tuple[str, ...] = ()

    def terminal(self, console: Console) -> None:
        """Print it; a file or pipe gets the tables' full width, so that no number is cut."""
        for warning in self.warnings:
            console.print(f"[bold yellow]{escape(warning)}[/]", highlight=False)
        for table in self.tables:
            drawn = _rich(table)
            if not console.is_terminal:
                drawn.width = console.measure(drawn, options=console.options.update(max_width=10_000)).maximum
            console.print(drawn, crop=False)
            for note in table.footnotes:
                console.print(escape(note), style="dim", highlight=False)
            console.print()

    def markdown(self) -> str:
        """The report as GitHub-flavoured Markdown."""
        parts = [f"**{warning}**\n" for warning in self.warnings]
        return "\n".join([*parts, *map(_markdown, self.tables)])

    def png(self, path: Path) -> None:
        """Draw the report into a PNG file, whole or not at all.

        Raises:
            UserError: the file cannot be written.
        """
        layouts = [_Layout(table) for table in self.tables]
        width = max(layout.width for layout in layouts)
        warnings = [line for warning in self.warnings for line in textwrap.wrap(warning, int(width))]
        height = len(warnings) + sum(layout.height for layout in layouts)
        buffer = io.BytesIO()
        with rc_context(FONT):
            figure = Figure(figsize=(width * _EM, height * _LINE), layout="none")
            axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
            axes.set_axis_off()
            for line, warning in enumerate(warnings):
                axes.text(0.5, line + 0.5, warning, va="center", weight="bold", color="firebrick")
            top = len(warnings)
            for layout in layouts:
                layout.draw(axes, top)
                top += layout.height
            figure.savefig(buffer, format="png", dpi=150)
        write_atomic(path, buffer.getvalue())


def save(report: Report, folder: Path, name: str) -> None:
    """Write `<folder>/<name>.md` and `<folder>/<name>.png`.

    Raises:
        UserError: a file cannot be written; an earlier one is then untouched.
    """
    write_atomic(folder / f"{name}.md", report.markdown())
    report.png(folder / f"{name}.png")


def _wrapped(head: str) -> list[str]:
    return textwrap.wrap(head, 14, break_long_words=False) or [""]


def _rich(table: Table) -> RichTable:
    drawn = RichTable(
        title=escape(table.title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for index, column in enumerate(table.columns):
        head = "\n".join([column.group, *_wrapped(column.head)]).strip()
        # A narrow terminal folds numbers and heads, but never cuts them.
        drawn.add_column(
            escape(head), justify="right" if index else "left", no_wrap=not index, overflow="fold"
        )
    for section in table.sections:
        if section.title:
            drawn.add_row(f"[bold]{escape(section.title)}[/]")
        for row in section.rows:
            drawn.add_row(*map(escape, row))
        drawn.add_section()
    return drawn


def _markdown(table: Table) -> str:
    def line(cells):
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    heads = [f"{column.group}<br>{column.head}".removeprefix("<br>") for column in table.columns]
    lines = [f"### {table.title}", "", line(heads), line([":--"] + ["--:"] * (len(heads) - 1))]
    for section in table.sections:
        if section.title:
            lines.append(line([f"**{section.title}**"] + [""] * (len(heads) - 1)))
        lines += [line(row) for row in section.rows]
    notes = "".join(f"\n{note}\n" for note in table.footnotes)
    return "\n".join(lines) + "\n" + notes


_EM = 0.075  # inches that one character takes in a picture
_LINE = 0.19  # inches that one line takes


class _Layout:
    """Where a table's texts stand in a picture, in characters from the left and lines from the top."""

    def __init__(self, table: Table):
        self.table = table
        self.heads = [_wrapped(column.head) for column in table.columns]
        rows = [row for section in table.sections for row in section.rows]
        self.widths = [
            max([len(line) for line in head] + [len(row[index]) for row in rows]) + 3
            for index, head in enumerate(self.heads)
        ]
        titles = [len(section.title) + 3 for section in table.sections]
        self.widths[0] = max(self.widths[0], *titles)
        self.width = max(sum(self.widths), len(table.title) + 3)
        self.notes = [line for note in table.footnotes for line in textwrap.wrap(note, int(self.width * 1.1))]
        self.head_lines = max(map(len, self.heads)) + any(column.group for column in table.columns)
        body = sum(len(section.rows) + bool(section.title) + 0.4 for section in table.sections)
        self.height = 2 + self.head_lines + 0.4 + body + len(self.notes) + 1.5

    def draw(self, axes: Axes, top: float) -> None:
        """Draw the table with its title on line `top`."""
        axes.text(0.5, top + 1, self.table.title, va="center", weight="bold")
        y = self._draw_heads(axes, top + 2)
        for section in self.table.sections:
            self._rule(axes, y + 0.2, 0, self.width)
            y += 0.4
            if section.title:
                axes.text(0.5, y + 0.5, section.title, va="center", style="italic")
                y += 1
            for row in section.rows:
                for index, text in enumerate(row):
                    self._cell(axes, index, y, text)
                y += 1
        self._rule(axes, y + 0.2, 0, self.width)
        for line, note in enumerate(self.notes):
            axes.text(0.5, y + 1 + line, note, va="center", size=8, color="dimgray")

    def _draw_heads(self, axes: Axes, y: float) -> float:
        bottom = y + self.head_lines
        for index, lines in enumerate(self.heads):
            for line, text in enumerate(lines):
                self._cell(axes, index, bottom - len(lines) + line, text, weight="bold")
        for group in dict.fromkeys(column.group for column in self.table.columns if column.group):
            members = [index for index, column in enumerate(self.table.columns) if column.group == group]
            left, right = sum(self.widths[: members[0]]), sum(self.widths[: members[-1] + 1])
            axes.text((left + right) / 2, y + 0.4, group, ha="center", va="center", weight="bold")
            self._rule(axes, y + 0.95, left + 0.5, right - 0.5)
        return bottom

    def _cell(self, axes: Axes, index: int, y: float, text: str, **style: str) -> None:
        left = sum(self.widths[:index])
        if index:
            axes.text(left + self.widths[index] / 2, y + 0.5, text, ha="center", va="center", **style)
        else:
            axes.text(left + 0.5, y + 0.5, text, ha="left", va="center", **style)

    @staticmethod
    def _rule(axes: Axes, y: float, left: float, right: float) -> None:
        axes.plot([left, right], [y, y], color="black", linewidth=0.6)
