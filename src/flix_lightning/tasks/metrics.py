"""Scores of generated texts, each a function of sums of counts over examples, so that they can be resampled.

XTREME-UP's four equal the scores of its own scorer. The others are those of sacrebleu, rouge-score and
torchmetrics.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from flix_lightning.common.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Metric:
    """A score that is computed from sums of counts over examples.

    Attributes:
        count: (prediction, target) -> what one example adds to each of the sums.
        score: sums `[..., size]` -> scores `[...]`, float64; 0 to 100 for XTREME-UP's. Leading axes stay.
    """

    count: Callable[[str, str], Sequence[float]]
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    def counts(self, predictions: Sequence[str], targets: Sequence[str]) -> NDArray[np.float64]:
        """Return what each example adds to each of the sums, `[examples, size]`."""
        pairs = zip(predictions, targets, strict=True)
        return np.array([self.count(prediction, target) for prediction, target in pairs], dtype=np.float64)


@cache
def get_metric(name: str) -> Metric:
    """Return the metric of that name, importing its library only now; raises UserError if there is none."""
    if name not in METRICS:
        raise UserError(
            f"unknown metric {name!r}; {did_you_mean(name, METRICS)}metrics are {', '.join(METRICS)}"
        )
    return METRICS[name]()


def score_texts(metric: str, predictions: Sequence[str], targets: Sequence[str]) -> float:
    """Score all predictions together by a key of `METRICS`.

    Raises:
        UserError: the metric is unknown.
        ValueError: there are more predictions than targets, or fewer.
    """
    found = get_metric(metric)
    return float(found.score(found.counts(predictions, targets).sum(axis=0)))


def _span_counts(prediction: str, target: str) -> Sequence[float]:
    predicted, wanted = entities(prediction), entities(target)
    return (predicted & wanted).total(), predicted.total(), wanted.total()


def entities(text: str) -> Counter[tuple[str, ...]]:
    """Count the entities of a text by (label, words): its `LABEL: words` pieces joined by ` $$ `.

    As in XTREME-UP, a piece with a second colon is not an entity, in targets as in predictions.
    """
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


def _sacrebleu(name: str, **options: int) -> Metric:
    """A metric of sacrebleu, from the statistics that sacrebleu itself sums over the segments of a corpus."""
    from sacrebleu import metrics

    metric = getattr(metrics, name)(**options)

    def count(prediction: str, target: str) -> Sequence[float]:
        return metric._extract_corpus_statistics([prediction], [[target]])[0]

    return Metric(count, _for_each(lambda sums: metric._compute_score_from_stats(list(sums)).score))


# Scripts that put no spaces between words: each character is a token, with its marks.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"


def rouge_tokens(text: str) -> list[str]:
    """Split a text of any script into lower-case tokens, for ROUGE.

    rouge-score's own tokenizer drops every letter that is not ASCII. On ASCII texts the two agree.
    """
    import regex

    return regex.findall(rf"{_UNSPACED}\p{{M}}*|(?:(?!{_UNSPACED})[\p{{L}}\p{{M}}\p{{N}}])+", text.lower())


def _rouge(name: str) -> Metric:
    """The mean over examples of an F1 of rouge-score."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([name], tokenizer=SimpleNamespace(tokenize=rouge_tokens))
    return Metric(
        lambda prediction, target: (scorer.score(target, prediction)[name].fmeasure, 1), _mean_score
    )


def _torchmetrics(name: str) -> Metric:
    """A metric of torchmetrics whose state is a few sums over examples; 0-1 there, 0-100 here."""
    import torch
    from torchmetrics import text

    make = getattr(text, name)

    def count(prediction: str, target: str) -> Sequence[float]:
        metric = make()
        metric.update([prediction], [target])
        return [float(value) for value in metric.metric_state.values()]

    def score(sums: NDArray[np.float64]) -> float:
        metric = make()
        metric.update([""], [""])  # torchmetrics warns of a score before the first example
        for state, value in zip(metric.metric_state, sums, strict=True):
            setattr(metric, state, torch.tensor(value))
        return float(np.nan_to_num(100 * metric.compute().item(), posinf=0))

    return Metric(count, _for_each(score))


def _for_each(score: Callable[[NDArray[np.float64]], float]) -> Callable[..., NDArray[np.float64]]:
    """Apply a function of the sums of one corpus along the last axis."""
    return lambda sums: np.apply_along_axis(score, -1, sums)


#: Name -> what makes the metric. A task's YAML names one or more.
METRICS: dict[str, Callable[[], Metric]] = {
    # Micro F1 over the entities of all examples (NER). A text is `LABEL: entity` pieces joined by ` $$ `.
    # Entities match as a multiset within one example. The score is 0 where no entity is right.
    "span_f1": lambda: Metric(_span_counts, _span_score),
    # Percentage of predictions that equal their target, without any normalisation (semantic parsing).
    "exact_match": lambda: Metric(lambda prediction, target: (prediction == target, 1), _mean_score),
    # Mean over examples of the F1 of bags of tokens, after SQuAD's normalisation (question answering).
    "qa_f1": lambda: Metric(_token_counts, _mean_score),
    # Corpus chrF2 (translation).
    "chrf": partial(_sacrebleu, "CHRF"),
    "chrf++": partial(_sacrebleu, "CHRF", word_order=2),
    "bleu": partial(_sacrebleu, "BLEU"),
    "ter": partial(_sacrebleu, "TER"),
    **{name: partial(_rouge, name) for name in ("rouge1", "rouge2", "rougeL")},
    "word_error_rate": partial(_torchmetrics, "WordErrorRate"),
    "char_error_rate": partial(_torchmetrics, "CharErrorRate"),
    "match_error_rate": partial(_torchmetrics, "MatchErrorRate"),
    "word_information_lost": partial(_torchmetrics, "WordInfoLost"),
    "word_information_preserved": partial(_torchmetrics, "WordInfoPreserved"),
}

#: Metrics that no checkpoint is selected by: the lowest score is the best.
LOWER_IS_BETTER = frozenset(
    ("ter", "word_error_rate", "char_error_rate", "match_error_rate", "word_information_lost")
)
