"""What a benchmark gives: one figure of each contender, and its ratio to a reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True)
class Row:
    """One contender's figure.

    Attributes:
        contender: its name.
        value: the median over rounds, in the measure's unit.
        ratio: to the reference's; the median over rounds of both figures of a round.
        low, high: first and third quartile of that; equal to it where nothing varies.
        bar: what the ratio is to keep to, if anything.
    """

    contender: str
    value: float
    ratio: float
    low: float
    high: float
    bar: float | None = None


@dataclass(frozen=True)
class Measure:
    """One figure of every contender.

    Attributes:
        title: what was measured, on what.
        unit: of the values.
        reference: the contender that ratios are to.
        rows: one a contender.
        more_is_better: a bar is the least ratio, and not the largest.
    """

    title: str
    unit: str
    reference: str
    rows: tuple[Row, ...]
    more_is_better: bool = False

    def missed(self) -> list[Row]:
        """Return the rows that do not keep to their bar."""
        return [
            row
            for row in self.rows
            if row.bar is not None and (row.ratio < row.bar if self.more_is_better else row.ratio > row.bar)
        ]


def measure(
    title: str,
    unit: str,
    figures: Mapping[str, Sequence[float]],
    reference: str,
    bars: Mapping[str, float],
    more_is_better: bool = False,
) -> Measure:
    """Make a measure of each contender's figures, one a round (one alone where nothing varies)."""
    rows = []
    for name, values in figures.items():
        ratios = [value / other for value, other in zip(values, figures[reference], strict=True)]
        low, middle, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        rows.append(Row(name, median(values), middle, low, high, bars.get(name)))
    return Measure(title, unit, reference, tuple(rows), more_is_better)
