"""One method minus another, paired by seed, language and example, with its intervals."""

from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from flix_lightning.intervals import bootstrap, resampled_sums, t_half_width
from flix_lightning.metrics import METRICS
from flix_lightning.tables.scores import DASH, ScoreColumn, Scores


def lines(scores: Scores, method: str, baseline: str) -> list[tuple[str, ...]]:
    """`method` minus `baseline` in every column and on the average, with a line for each kind of interval."""
    means, over_seeds = [], []
    for ours, theirs in zip(scores.line(method), scores.line(baseline), strict=True):
        paired = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        means.append(f"{fmean(paired):+z.1f}" if paired else DASH)
        half = t_half_width(paired) if len(paired) > 1 else None
        over_seeds.append(DASH if half is None else _interval(fmean(paired) - half, fmean(paired) + half))
    groups = [_resampled(scores, column, method, baseline) for column in scores.columns]
    over_languages = [_interval(*bootstrap([group])) if len(group) else DASH for group in groups]
    over_languages.append(_interval(*bootstrap(groups)) if all(map(len, groups)) else DASH)
    return [
        (baseline, *means),
        ("  over seeds", *over_seeds),
        ("  over languages", *over_languages),
    ]


def _resampled(scores: Scores, column: ScoreColumn, method: str, baseline: str) -> NDArray[np.float64]:
    """`[languages, resamples]`: the difference on resampled examples, averaged over the seeds of both."""
    both = sorted(scores.by_seed(column, method).keys() & scores.by_seed(column, baseline).keys())
    found = []
    for language in scores.languages(column) if both else ():
        rows = [[scores.rows(column, name, seed)[language] for seed in both] for name in (method, baseline)]
        counts = np.array([[scores.counts(row) for row in runs] for runs in rows])
        sums = torch.from_numpy(resampled_sums(counts))
        ours, theirs = METRICS[rows[0][0].metric].score(sums).numpy().mean(axis=2).T
        found.append(ours - theirs)
    return np.array(found)


def _interval(low: float, high: float) -> str:
    return f"{low:+z.1f} to {high:+z.1f}"
