"""Charts as numbers, and a report that is read with a bar chart, which is its picture."""

import io
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flix_lightning.common.files import write_atomic
from flix_lightning.reports.render import FONT, Report


@dataclass(frozen=True)
class Panel:
    """Bars of several series, in groups.

    Attributes:
        title: above it.
        groups: what stands below each group of bars.
        series: name -> its value in each group, None where it has none.
    """

    title: str
    groups: Sequence[str]
    series: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Curves:
    """Lines of several series over one axis.

    Attributes:
        title: above them.
        x, y: what the axes show, with its unit.
        series: name -> its points (x, y), from the least x.
    """

    title: str
    x: str
    y: str
    series: Mapping[str, Sequence[tuple[float, float]]]


def means(points: Iterable[tuple[float, Collection[float]]]) -> list[tuple[float, float]]:
    """Points of (x, mean y) from those of (x, all its y); an x without any has none."""
    return [(x, fmean(values)) for x, values in points if values]


@dataclass(frozen=True)
class BarChart(Report):
    """A report whose picture shows panels of bars side by side, below a title, in place of its tables."""

    title: str = ""
    panels: tuple[Panel, ...] = ()

    @property
    def widest(self) -> float:
        """The largest absolute value of all panels, or 1 where there is none but 0."""
        lines = [line for panel in self.panels for line in panel.series.values()]
        return max((abs(value) for line in lines for value in line if value is not None), default=0) or 1

    def png(self, path: Path) -> None:
        """Draw the panels into a PNG file, whole or not at all.

        Raises:
            UserError: the file cannot be written.
        """
        buffer, wide = io.BytesIO(), len(self.panels)
        warnings = [
            line for one in self.warnings for line in textwrap.wrap(one, 55 * wide, break_on_hyphens=False)
        ]
        with rc_context(FONT):
            figure = Figure(figsize=(5.5 * wide, 4 + 0.18 * len(warnings)), layout="constrained")
            figure.suptitle("\n".join([self.title, *warnings]), weight="bold", size=9)
            for axes, panel in zip(figure.subplots(1, wide, squeeze=False)[0], self.panels, strict=True):
                _draw(axes, panel)
            figure.savefig(buffer, format="png", dpi=150)
        write_atomic(path, buffer.getvalue())


def _draw(axes: Axes, panel: Panel) -> None:
    width = 0.8 / len(panel.series)
    for place, (name, values) in enumerate(panel.series.items()):
        there = [(group, value) for group, value in enumerate(values) if value is not None]
        left = [group - 0.4 + width * (place + 0.5) for group, _ in there]
        bars = axes.bar(left, [value for _, value in there], width, label=name)
        axes.bar_label(bars, [f"{value:+z.1f}" for _, value in there], padding=2, size=7)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xticks(range(len(panel.groups)), panel.groups)
    axes.set_xlim(-0.5, len(panel.groups) - 0.5)
    axes.set_title(panel.title, style="italic")
    axes.margins(y=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
