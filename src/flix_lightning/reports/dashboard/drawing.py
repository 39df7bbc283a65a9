"""Where the points of a line chart stand in a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from matplotlib.ticker import MaxNLocator

from flix_lightning.reports.chart import Curves

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 38, 14, 10, 38  # margins
FEW = 8  # values of x that are each written below, and points of a line that are each marked


@dataclass(frozen=True)
class Line:
    """One series: its name, its path in pixels, and (pixel x, pixel y, x, y) of each point."""

    name: str
    path: str
    points: Sequence[tuple[float, float, float, float]]

    @property
    def marked(self) -> bool:
        """Whether each point has a mark."""
        return len(self.points) <= FEW


@dataclass(frozen=True)
class Drawing:
    """Line charts of one point or more, in pixels from the left upper corner."""

    curves: Curves

    @cached_property
    def x_ticks(self) -> list[tuple[float, str]]:
        """Places of the numbers below the chart, and the numbers."""
        values = self._values(0)
        ticks = values
        if len(values) > FEW:
            ticks = MaxNLocator(5).tick_values(values[0], values[-1])
        return [(self._x(tick), f"{tick:g}") for tick in ticks if values[0] <= tick <= values[-1]]

    @cached_property
    def y_ticks(self) -> list[tuple[float, str]]:
        """Places of the numbers left of the chart, and the numbers."""
        return [(self._y(tick), f"{tick:g}") for tick in self._y_axis]

    @cached_property
    def lines(self) -> list[Line]:
        """The series."""
        return [self._line(name, points) for name, points in self.curves.series.items()]

    @cached_property
    def _y_axis(self) -> Sequence[float]:
        values = self._values(1)
        apart = 0 if len(values) > 1 else 1
        return MaxNLocator(4).tick_values(values[0] - apart, values[-1] + apart)

    def _values(self, axis: int) -> list[float]:
        """All that the points have on an axis, sorted."""
        return sorted({point[axis] for points in self.curves.series.values() for point in points})

    def _x(self, x: float) -> float:
        values = self._values(0)
        share = (x - values[0]) / (values[-1] - values[0]) if len(values) > 1 else 0.5
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def _y(self, y: float) -> float:
        low, high = self._y_axis[0], self._y_axis[-1]
        return round(TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    def _line(self, name: str, points: Sequence[tuple[float, float]]) -> Line:
        places = [(self._x(x), self._y(y), x, y) for x, y in points]
        return Line(name, " ".join(f"{left},{top}" for left, top, _, _ in places), places)
