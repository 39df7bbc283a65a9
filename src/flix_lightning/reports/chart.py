"""Charts of bars and of lines, drawn by matplotlib as a PNG or as part of a web page."""

import io
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean

from matplotlib import rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flix_lightning.common.files import write_atomic
from flix_lightning.reports.render import FONT, Report, png_bytes

# Distinct with every common kind of colour blindness, and readable on white and on black.
_COLOURS = ("#0a84d0", "#d9661f", "#12a277", "#b8568f", "#7a6fd6", "#9c8a14", "#7b8490")
_MARKS = "os^DvPX"
_INK = "#010203"  # stands for the page's own text colour
_INKED = "text.color axes.labelcolor axes.edgecolor xtick.color ytick.color".split()
_POINTS_MARKED = 8  # a line of more points has no mark on each
_FEW_GROUPS = 4  # panels of more groups stand one below another


@dataclass(frozen=True)
class Bars:
    """Bars of several series, in groups.

    Attributes:
        groups: what stands below each group of bars.
        series: name -> its value in each group, None where it has none.
        form: format of the value at each bar, as for str.format; None is no values.
    """

    title: str
    groups: Sequence[str]
    series: Mapping[str, Sequence[float | None]]
    form: str | None = "{:+z.1f}"

    def draw(self, axes: Axes) -> list[str]:
        """Draw the bars with their values."""
        width = 0.8 / len(self.series)
        for place, (name, values) in enumerate(self.series.items()):
            found = [(group, value) for group, value in enumerate(values) if value is not None]
            left = [group - 0.4 + width * (place + 0.5) for group, _ in found]
            heights = [value for _, value in found]
            bars = axes.bar(left, heights, width, label=name, color=_COLOURS[place % len(_COLOURS)])
            if self.form:
                axes.bar_label(bars, map(self.form.format, heights), padding=2, size=7)
        axes.axhline(0, color=rcParams["axes.edgecolor"], linewidth=0.6)
        axes.set_xticks(range(len(self.groups)), self.groups, size=8)
        axes.set_xlim(-0.5, max(len(self.groups), 1) - 0.5)
        axes.margins(y=0.12)
        if not any(value for values in self.series.values() for value in values):
            axes.set_ylim(-1, 1)
        return []


@dataclass(frozen=True)
class Curves:
    """Lines of several series over one axis.

    Attributes:
        x, y: what the axes show, with its unit.
        series: name -> its points (x, y), from the least x.
    """

    title: str
    x: str
    y: str
    series: Mapping[str, Sequence[tuple[float, float]]]

    def draw(self, axes: Axes) -> list[str]:
        """Draw the lines; return a text for each point that is marked, in the order of `tip-<number>`."""
        tips = []
        for place, (name, points) in enumerate(self.series.items()):
            colour = _COLOURS[place % len(_COLOURS)]
            axes.plot(*zip(*points, strict=True) if points else ([], []), color=colour, label=name or None)
            for x, y in points if len(points) <= _POINTS_MARKED else ():
                (mark,) = axes.plot(x, y, _MARKS[place % len(_MARKS)], color=colour, markersize=5)
                mark.set_gid(f"tip-{len(tips)}")
                tips.append(f"{f'{name}: ' if name else ''}{y:.4g} at {x:g}")
        axes.set_xlabel(self.x)
        axes.set_ylabel(self.y)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        return tips


def means(points: Iterable[tuple[float, Collection[float]]]) -> list[tuple[float, float]]:
    """Return a point (x, mean y) for each (x, all its y) that has a y."""
    return [(x, fmean(values)) for x, values in points if values]


@dataclass(frozen=True)
class BarChart(Report):
    """A report whose picture is a title and panels of bars in place of its tables."""

    title: str = ""
    panels: tuple[Bars, ...] = ()

    def png(self, path: Path) -> None:
        """Draw the panels into a PNG file, whole or not at all; raises UserError if it cannot be written."""
        stacked = max(len(panel.groups) for panel in self.panels) > _FEW_GROUPS
        count = len(self.panels)
        shape, width, height = ((count, 1), 11, 2.5 * count) if stacked else ((1, count), 5.5 * count, 4)
        lines = [line for warning in self.warnings for line in textwrap.wrap(warning, int(10 * width))]
        with rc_context(FONT):
            figure = Figure(figsize=(width, height + 0.18 * len(lines)), layout="constrained")
            figure.suptitle("\n".join([self.title, *lines]), weight="bold", size=9)
            for axes, panel in zip(figure.subplots(*shape, squeeze=False).flat, self.panels, strict=True):
                _draw(axes, panel, legend=not stacked)
            if stacked:  # outside, as bars stand everywhere in a panel
                drawn = axes.get_legend_handles_labels()
                figure.legend(*drawn, loc="outside lower center", ncols=len(drawn[0]), frameon=False)
            write_atomic(path, png_bytes(figure))


def svg(panel: Bars | Curves) -> str:
    """Draw a panel as SVG within a web page: in the page's font and colour of text, with values on hover."""
    buffer = io.StringIO()
    with rc_context(FONT | dict.fromkeys(_INKED, _INK) | {"svg.fonttype": "none"}):
        figure = Figure(figsize=(3.4, 2.4), layout="constrained")
        tips = _draw(figure.subplots(), panel)
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    drawn = '<svg class="chart" role="img" ' + buffer.getvalue().partition("<svg ")[2]
    for number, tip in enumerate(tips):
        drawn = drawn.replace(f'<g id="tip-{number}">', f"<g><title>{escape(tip)}</title>")
    return drawn.replace(_INK, "currentColor").replace("font-family: 'DejaVu Sans'; ", "")


def _draw(axes: Axes, panel: Bars | Curves, legend: bool = True) -> list[str]:
    tips = panel.draw(axes)
    axes.set_title(panel.title, style="italic")
    axes.spines[["top", "right"]].set_visible(False)
    if legend and axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=8)
    return tips
