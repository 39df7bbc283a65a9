"""Made-up examples behind made-up scores."""

import numpy as np


def alike(row):
    """Examples that all have the row's own score, so that resampling them changes nothing."""
    return np.array([[row.value / 100, 1.0]] * row.n)
