"""95 % intervals: Student's t over seeds, and a bootstrap over languages and their examples."""

from collections.abc import Collection, Sequence
from functools import cache
from statistics import stdev

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as students_t

SAMPLES = 2000
"""How often a bootstrap resamples."""


def t_half_width(values: Collection[float]) -> float:
    """Half the width of the 95 % t-interval of the mean of two or more values."""
    count = len(values)
    return float(students_t.ppf(0.975, df=count - 1)) * stdev(values) / count**0.5


def bootstrap(groups: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """95 % percentile interval of the mean of the groups' means over languages.

    Each group's languages are resampled by themselves, with replacement; a language that is drawn brings one
    of its own resampled values, drawn at random. The draws are the same in every call.

    Args:
        groups: for each column of a table `[languages, resamples]`: each language's value on several
            resamples of its examples, or (`[languages, 1]`) on its examples as they are.
    """
    generator = np.random.default_rng(0)
    means = np.zeros(SAMPLES)
    for group in groups:
        languages, resamples = group.shape
        drawn = generator.integers(0, languages, size=(SAMPLES, languages))
        values = group[drawn, generator.integers(0, resamples, size=drawn.shape)]
        means += values.mean(axis=1) / len(groups)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def resampled_sums(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over resampled examples, `[SAMPLES, ..., sums]`, from their counts `[..., examples, sums]`.

    Every leading entry (a seed, a method) sees the same resamples, the same in every call for the same number
    of examples: so differences stay paired.
    """
    return np.einsum("be,...es->b...s", _how_often(counts.shape[-2]), counts)


@cache
def _how_often(examples: int) -> NDArray[np.float64]:
    """How often each example is in each resample, `[SAMPLES, examples]`."""
    generator = np.random.default_rng(examples)
    drawn = generator.multinomial(examples, np.full(examples, 1 / examples), size=SAMPLES)
    return drawn.astype(np.float64)
