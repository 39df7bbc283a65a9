"""95 % intervals: Student's t over seeds, and a bootstrap over languages and their examples."""

from collections.abc import Collection, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

SAMPLES = 2000
"""Number of resamples of a bootstrap."""


def t_half_width(values: Collection[float], confidence: float = 0.95) -> float:
    """Half the width of the t-interval of the mean of two or more values."""
    return float(stats.t.ppf((1 + confidence) / 2, df=len(values) - 1) * stats.sem(list(values)))


def bootstrap(groups: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """95 % percentile interval of the mean of the groups' means over languages.

    Each group's languages are resampled with replacement. A drawn language brings one of its own resampled
    values, drawn at random. The draws are the same in every call.

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

    Every leading entry (a seed, a method) sees the same resamples, so that differences stay paired. They are
    the same in every call for the same number of examples.
    """
    return np.einsum("be,...es->b...s", _draws(counts.shape[-2]), counts)


@cache
def _draws(examples: int) -> NDArray[np.float64]:
    """How often each resample draws each example, `[SAMPLES, examples]`."""
    generator = np.random.default_rng(examples)
    drawn = generator.multinomial(examples, np.full(examples, 1 / examples), size=SAMPLES)
    return drawn.astype(np.float64)
