"""95 % intervals: Student's t over seeds, and a bootstrap over languages."""

from collections.abc import Collection, Sequence
from statistics import stdev

import numpy as np

# 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom; more take the last, too wide by under 5 %.
# fmt: off
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)
# fmt: on


def t_half_width(values: Collection[float]) -> float:
    """Half the width of the 95 % t-interval of the mean of two or more values."""
    count = len(values)
    return _T[min(count - 1, len(_T)) - 1] * stdev(values) / count**0.5


def bootstrap(groups: Sequence[Sequence[float]], samples: int = 10_000) -> tuple[float, float]:
    """95 % percentile interval of the mean of the groups' means.

    Each group is resampled by itself, with replacement; the draws are the same in every call.

    Args:
        groups: for each column of a table, one value a language.
        samples: how many times to resample.
    """
    generator = np.random.default_rng(0)
    means = np.zeros(samples)
    for group in groups:
        draws = generator.integers(0, len(group), size=(samples, len(group)))
        means += np.asarray(group)[draws].mean(axis=1) / len(groups)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
