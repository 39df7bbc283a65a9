"""Measures as Markdown, a figure, and rows."""

import io
import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measure import Measure, Row
from flix_lightning.common.files import write_atomic
from flix_lightning.reports.render import FONT, Column, Report, Section, Table

WIDE = 3  # panels side by side in the figure


def report(measures: Sequence[Measure], notes: Sequence[str]) -> Report:
    """Make a table of each measure, with `notes` below the last one."""
    last = len(measures) - 1
    return Report(
        tuple(
            _table(measure, tuple(notes) if place == last else ()) for place, measure in enumerate(measures)
        )
    )


def write(measures: Sequence[Measure], notes: Sequence[str], folder: Path) -> None:
    """Write report.md, figure.png (measures with a bar) and rows.jsonl (one line a measure) into `folder`.

    Raises:
        UserError: a file cannot be written.
    """
    write_atomic(folder / "report.md", report(measures, notes).markdown())
    write_atomic(folder / "rows.jsonl", "".join(json.dumps(asdict(one)) + "\n" for one in measures))
    barred = [one for one in measures if any(row.bar is not None for row in one.rows)]
    buffer, high = io.BytesIO(), math.ceil(len(barred) / WIDE)
    with rc_context(FONT):
        figure = Figure(figsize=(6.5 * WIDE, 2.6 * high), layout="constrained")
        rooms = figure.subplots(high, WIDE, squeeze=False).ravel()
        for axes, one in zip(rooms, barred, strict=False):
            _draw(axes, one)
        for axes in rooms[len(barred) :]:
            axes.set_axis_off()
        figure.savefig(buffer, format="png", dpi=100)
    write_atomic(folder / "figure.png", buffer.getvalue())


def _table(measure: Measure, notes: tuple[str, ...]) -> Table:
    columns = tuple(map(Column, ("", "median", f"ratio to {measure.reference}", "quartiles", "bar")))
    rows = tuple(_texts(row, measure) for row in measure.rows)
    return Table(f"{measure.title} ({measure.unit})", columns, (Section("", rows),), notes)


def _texts(row: Row, measure: Measure) -> tuple[str, ...]:
    quartiles = "" if row.low == row.high else f"{row.low:.3f}-{row.high:.3f}"
    bar = ""
    if row.bar is not None:
        kept = "missed" if row in measure.missed() else "kept"
        bar = f"{'≥' if measure.more_is_better else '≤'} {row.bar:g}: {kept}"
    return (row.contender, f"{row.value:,.4g}", f"{row.ratio:.3f}", quartiles, bar)


def _draw(axes: Axes, measure: Measure) -> None:
    for place, row in enumerate(measure.rows):
        colour = "tab:blue" if row.contender.startswith("FLix") else "dimgray"
        axes.plot([row.low, row.high], [place, place], color=colour, linewidth=4, alpha=0.4)
        axes.plot(row.ratio, place, "o", color=colour)
        if row.bar is not None:
            axes.plot([row.bar] * 2, [place - 0.4, place + 0.4], color="tab:red", linewidth=1.5)
    axes.axvline(1, color="black", linewidth=0.6)
    axes.set_yticks(range(len(measure.rows)), [row.contender for row in measure.rows])
    axes.invert_yaxis()
    title = f"{measure.title}: ratio to {measure.reference}"
    axes.set_title(textwrap.fill(title, 50), size=8, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
