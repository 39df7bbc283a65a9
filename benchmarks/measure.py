"""The result of a benchmark: a value for each contender, and its ratio to a reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True)
class Row:
    """One contender's value.

    Attributes:
        contender: its name.
        value: the median over rounds, in the measure's unit.
        ratio: value divided by the reference's of the same round; the median over rounds.
        low, high: first and third quartile of the ratio over rounds; equal to `ratio` for a count.
        bar: limit of the ratio, or None.
    """

    contender: str
    value: float
    ratio: float
    low: float
    high: float
    bar: float | None = None


@dataclass(frozen=True)
class Measure:
    """One quantity, measured for every contender.

    Attributes:
        title: what was measured, on what.
        unit: of the values.
        reference: the contender whose value divides the others'.
        rows: one for each contender.
        more_is_better: a bar is the smallest allowed ratio; otherwise the largest.
    """

    title: str
    unit: str
    reference: str
    rows: tuple[Row, ...]
    more_is_better: bool = False

    def missed(self) -> list[Row]:
        """Return the rows whose ratio is beyond its bar."""
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
    """Make a measure from each contender's values: one for each round, or a single one for a count."""
    rows = []
    for name, values in figures.items():
        ratios = [value / other for value, other in zip(values, figures[reference], strict=True)]
        low, middle, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        rows.append(Row(name, median(values), middle, low, high, bars.get(name)))
    return Measure(title, unit, reference, tuple(rows), more_is_better)
