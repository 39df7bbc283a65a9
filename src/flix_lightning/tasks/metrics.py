"""Scores of generated text on 0-100, each equal to XTREME-UP's own scorer.

Every metric keeps one float64 vector of sums over examples, so that its states are the same on every
process and reduce by addition, and so that no count is rounded (below 2**53).
"""

import re
import string
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence

import torch
from sacrebleu.metrics.helpers import extract_all_char_ngrams
from torch import Tensor
from torchmetrics import Metric


class TextMetric(Metric):
    """Base of the metrics: sums of counts over (prediction, target) pairs, and a score of those sums.

    `update` takes two lists of strings of one length, else raises ValueError; `compute` gives a float64
    scalar in [0, 100].
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    sums: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.add_state("sums", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[str], targets: Sequence[str]) -> None:
        """Count `predictions` against their `targets`, one target each."""
        if len(predictions) != len(targets):
            raise ValueError(
                f"{len(predictions)} predictions for {len(targets)} targets: one for each is needed"
            )
        for prediction, target in zip(predictions, targets, strict=True):
            self.sums += torch.tensor(
                self.count(prediction, target), dtype=torch.float64, device=self.sums.device
            )

    def compute(self) -> Tensor:
        """Give the score of all examples together."""
        return self.score(self.sums)

    @abstractmethod
    def count(self, prediction: str, target: str) -> Sequence[float]:
        """Give what one example adds to each of the sums."""

    @staticmethod
    @abstractmethod
    def score(sums: Tensor) -> Tensor:
        """Give the score `[...]` of sums `[..., size]`; resampling examples needs no more than this."""


class SpanF1(TextMetric):
    """Micro F1 over labelled entities (XTREME-UP's NER); 0 where no entity is predicted and right.

    A text is `LABEL: entity` pieces joined by ` $$ `; a piece that is not exactly two parts around a
    colon is no entity, in targets as in predictions. Entities match as a multiset within one example.
    """

    def __init__(self):
        super().__init__(size=3)

    def count(self, prediction: str, target: str) -> Sequence[float]:
        """Give the numbers of right, predicted and target entities."""
        predicted, wanted = _entities(prediction), _entities(target)
        return (predicted & wanted).total(), predicted.total(), wanted.total()

    @staticmethod
    def score(sums: Tensor) -> Tensor:
        """Give the F1 of all examples together."""
        right, predicted, wanted = sums.unbind(-1)
        return 200 * right / (predicted + wanted).clamp(min=1)


class ExactMatch(TextMetric):
    """Percentage of predictions that equal their target, nothing normalised (semantic parsing)."""

    def __init__(self):
        super().__init__(size=2)

    def count(self, prediction: str, target: str) -> Sequence[float]:
        """Give whether the two are equal, and 1 example."""
        return prediction == target, 1

    @staticmethod
    def score(sums: Tensor) -> Tensor:
        """Give the percentage over all examples."""
        return 100 * sums[..., 0] / sums[..., 1]


class TokenF1(TextMetric):
    """Mean F1 over bags of white-space tokens, after SQuAD's normalisation (question answering).

    Two texts that are both empty once normalised score 0, as in XTREME-UP (SQuAD's own would say 100).
    """

    def __init__(self):
        super().__init__(size=2)

    def count(self, prediction: str, target: str) -> Sequence[float]:
        """Give the F1 of one example in [0, 1], and 1 example."""
        predicted, wanted = Counter(_answer_tokens(prediction)), Counter(_answer_tokens(target))
        tokens = predicted.total() + wanted.total()
        return (2 * (predicted & wanted).total() / tokens if tokens else 0.0), 1

    @staticmethod
    def score(sums: Tensor) -> Tensor:
        """Give the mean over all examples."""
        return 100 * sums[..., 0] / sums[..., 1]


class ChrF(TextMetric):
    """Corpus chrF2: `sacrebleu.corpus_chrf(predictions, [targets]).score` (translation).

    torchmetrics' CHRFScore is not used: it averages over all six orders where sacrebleu leaves out those
    that no text is long enough for, and its float32 counts drift on large sets.
    """

    ORDER = 6
    BETA = 2

    def __init__(self):
        super().__init__(size=3 * self.ORDER)

    def count(self, prediction: str, target: str) -> Sequence[float]:
        """Give, for each order, the numbers of predicted, target and shared character n-grams."""
        counts = []
        for predicted, wanted in zip(
            extract_all_char_ngrams(prediction, self.ORDER),
            extract_all_char_ngrams(target, self.ORDER),
            strict=True,
        ):
            # As in sacrebleu: an order that the target is too short for does not cost precision.
            counts += [predicted.total() if wanted else 0, wanted.total(), (predicted & wanted).total()]
        return counts

    @staticmethod
    def score(sums: Tensor) -> Tensor:
        """Give the F-beta of the mean precision and the mean recall over the orders that occur."""
        predicted, wanted, shared = sums.unflatten(-1, (ChrF.ORDER, 3)).unbind(-1)
        occurs = (predicted > 0) & (wanted > 0)
        orders = occurs.sum(-1).clamp(min=1)
        precision = torch.where(occurs, shared / predicted, 0).sum(-1) / orders
        recall = torch.where(occurs, shared / wanted, 0).sum(-1) / orders
        weight = ChrF.BETA**2
        score = 100 * (1 + weight) * precision * recall / (weight * precision + recall)
        return torch.where(shared.any(-1), score, 0)


METRICS: dict[str, type[TextMetric]] = {
    "span_f1": SpanF1,
    "exact_match": ExactMatch,
    "qa_f1": TokenF1,
    "chrf": ChrF,
}


def _entities(text: str) -> Counter[tuple[str, ...]]:
    pieces = (tuple(part.strip() for part in piece.strip().split(":")) for piece in text.split(" $$ "))
    return Counter(piece for piece in pieces if len(piece) == 2)


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _answer_tokens(text: str) -> list[str]:
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_NO_PUNCTUATION)).split()
