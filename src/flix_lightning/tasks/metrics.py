"""Scores of generated texts, 0 to 100, each equal to the score of XTREME-UP's own scorer."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.helpers import extract_all_char_ngrams


@dataclass(frozen=True)
class Metric:
    """A score that is computed from sums of counts over examples.

    Attributes:
        count: (prediction, target) -> what one example adds to each of the sums.
        score: sums `[..., size]` -> scores `[...]`, float64 in [0, 100]. Leading axes stay as they are.
    """

    count: Callable[[str, str], Sequence[float]]
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    def counts(self, predictions: Sequence[str], targets: Sequence[str]) -> NDArray[np.float64]:
        """Return what each example adds to each of the sums, `[examples, size]`."""
        pairs = zip(predictions, targets, strict=True)
        return np.array([self.count(prediction, target) for prediction, target in pairs], dtype=np.float64)


def score_texts(metric: str, predictions: Sequence[str], targets: Sequence[str]) -> float:
    """Return the score of all predictions together, 0 to 100. `metric` is a key of `METRICS`.

    Raises:
        ValueError: There is not one target for each prediction.
    """
    return float(METRICS[metric].score(METRICS[metric].counts(predictions, targets).sum(axis=0)))


def _span_counts(prediction: str, target: str) -> Sequence[float]:
    predicted, wanted = _entities(prediction), _entities(target)
    return (predicted & wanted).total(), predicted.total(), wanted.total()


def _entities(text: str) -> Counter[tuple[str, ...]]:
    # As in XTREME-UP, a piece with a second colon is not an entity, in targets as in predictions.
    pieces = (tuple(part.strip() for part in piece.split(":")) for piece in text.split(" $$ "))
    return Counter(piece for piece in pieces if len(piece) == 2)


def _span_score(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    correct, predicted, wanted = np.moveaxis(sums, -1, 0)
    return 200 * correct / np.maximum(predicted + wanted, 1)


def _token_counts(prediction: str, target: str) -> Sequence[float]:
    predicted, wanted = Counter(_answer_tokens(prediction)), Counter(_answer_tokens(target))
    tokens = predicted.total() + wanted.total()
    # As in XTREME-UP, two texts without tokens score 0. SQuAD's own scorer gives 100.
    return (2 * (predicted & wanted).total() / tokens if tokens else 0.0), 1


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _answer_tokens(text: str) -> list[str]:
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_NO_PUNCTUATION)).split()


def _mean_score(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return 100 * sums[..., 0] / sums[..., 1]


_CHRF_ORDER, _CHRF_BETA = 6, 2


def _chrf_counts(prediction: str, target: str) -> Sequence[float]:
    counts = []
    for predicted, wanted in zip(
        extract_all_char_ngrams(prediction, _CHRF_ORDER),
        extract_all_char_ngrams(target, _CHRF_ORDER),
        strict=True,
    ):
        # As in sacrebleu, an order that the target is too short for does not lower precision.
        counts += [predicted.total() if wanted else 0, wanted.total(), (predicted & wanted).total()]
    return counts


def _chrf_score(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    predicted, wanted, shared = np.moveaxis(sums.reshape(*sums.shape[:-1], _CHRF_ORDER, 3), -1, 0)
    # As in sacrebleu, only the orders that occur are averaged.
    occurs = (predicted > 0) & (wanted > 0)
    orders = np.maximum(occurs.sum(-1), 1)
    precision = (occurs * shared / np.maximum(predicted, 1)).sum(-1) / orders
    recall = (occurs * shared / np.maximum(wanted, 1)).sum(-1) / orders
    weighted = _CHRF_BETA**2 * precision + recall
    return 100 * (1 + _CHRF_BETA**2) * precision * recall / np.where(weighted > 0, weighted, 1)


METRICS: dict[str, Metric] = {
    # Micro F1 over the entities of all examples (NER). A text is `LABEL: entity` pieces joined by ` $$ `.
    # Entities match as a multiset within one example. The score is 0 where no entity is right.
    "span_f1": Metric(_span_counts, _span_score),
    # Percentage of predictions that equal their target, without any normalisation (semantic parsing).
    "exact_match": Metric(lambda prediction, target: (prediction == target, 1), _mean_score),
    # Mean over examples of the F1 of bags of tokens, after SQuAD's normalisation (question answering).
    "qa_f1": Metric(_token_counts, _mean_score),
    # Corpus chrF2, equal to `sacrebleu.corpus_chrf(predictions, [targets]).score` (translation).
    "chrf": Metric(_chrf_counts, _chrf_score),
}
