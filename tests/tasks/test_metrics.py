import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from torchmetrics.functional import text as functional

from flix_lightning.common.errors import UserError
from flix_lightning.tasks.metrics import METRICS, get_metric, rouge_tokens, score_texts

# Texts and the scores that XTREME-UP's own scorer (for chrF: sacrebleu) gives. Where the texts came from real
# data, their letters are exchanged one for one, which changes no score.
CASES = [
    json.loads(line)
    for line in (Path(__file__).parent / "metric_cases.jsonl").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize("number", range(1, 62))
def test_scores_equal_xtreme_ups_own_scorer(number):
    case = CASES[number - 1]
    score = score_texts(case["metric"], case["predictions"], case["targets"])
    assert score == pytest.approx(case["score"], abs=1e-6)


@pytest.mark.parametrize(
    ("predictions", "targets", "expected"),
    [
        (["PER: Ann"], ["PER: Ann"], 100),
        (["PER: Ann $$ LOC: Rome"], ["PER: Ann"], 200 / 3),  # 1 right of 2, 1 wanted: 2*1/(2+1)
        (["PER: Ann $$ PER: Ann"], ["PER: Ann"], 200 / 3),  # a repeat is wrong
        (["PER: Ann $$ PER: Ann"], ["PER: Ann $$ PER: Ann"], 100),  # unless the target repeats it
        (["LOC: Rome", ""], ["", "LOC: Rome"], 0),  # entities match within a sentence only
        (["PER: Ann", "LOC: Rome"], ["PER: Ann", "LOC: Paris"], 50),  # over all sentences together
        (["per: ann"], ["PER: Ann"], 0),
        ([" PER :  Ann "], ["PER: Ann"], 100),
        (["DATE: 10:00 $$ PER: Ann"], ["PER: Ann"], 100),  # a piece with a second colon is not an entity
        (["PER: Ann"], ["DATE: 10:00 $$ PER: Ann"], 100),
        (["PER: Ann$$LOC: Rome"], ["PER: Ann $$ LOC: Rome"], 0),
        (["", "nothing"], ["", ""], 0),
    ],
)
def test_span_f1_by_hand(predictions, targets, expected):
    assert score_texts("span_f1", predictions, targets) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("predictions", "targets", "expected"),
    [
        (["[IN:A ]", "[IN:B ]", "x"], ["[IN:A ]", "[IN:B]", "y"], 100 / 3),
        (["A"], ["a"], 0),
        (["a "], ["a"], 0),
        ([""], [""], 100),
    ],
)
def test_exact_match_by_hand(predictions, targets, expected):
    assert score_texts("exact_match", predictions, targets) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("predictions", "targets", "expected"),
    [
        (["red car"], ["car"], 200 / 3),  # precision 1/2, recall 1
        (["The Car!"], ["a car"], 100),
        (["cat cat"], ["cat"], 200 / 3),  # tokens match as a bag
        (["a.n"], ["an"], 0),  # punctuation is deleted before articles: both become `an`, then nothing
        (["theatre"], ["atre"], 0),  # an article is a whole word
        (["car", "bus"], ["car", "van"], 50),  # mean over examples
        (["東京。"], ["東京"], 0),  # only ASCII punctuation is deleted
        (["the"], ["a"], 0),  # two texts without tokens: 0, not 100
        ([""], ["car"], 0),
    ],
)
def test_token_f1_by_hand(predictions, targets, expected):
    assert score_texts("qa_f1", predictions, targets) == pytest.approx(expected, abs=1e-9)


texts = st.lists(
    st.tuples(st.text(max_size=12), st.text(max_size=12))
    | st.text(alphabet="ab ", max_size=12).map(lambda text: (text, text[::-1])),
    min_size=1,
    max_size=8,
)


@given(texts)
@settings(max_examples=300, deadline=None)
def test_chrf_is_sacrebleus(pairs):
    predictions, targets = map(list, zip(*pairs, strict=True))
    expected = sacrebleu.corpus_chrf(predictions, [targets]).score
    assert score_texts("chrf", predictions, targets) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", METRICS)
class TestEveryMetric:
    PREDICTIONS = ("PER: Ann", "a b c", "LOC: x $$ PER: Bo", "", "abc def")
    TARGETS = ("PER: Ann", "a b d", "LOC: y $$ PER: Bo", "PER: Cy", "abc deg")

    def test_samples_are_scored_independently(self, name):
        # As the bootstrap does: [samples, seeds, size] -> [samples, seeds].
        counts = get_metric(name).counts(self.PREDICTIONS, self.TARGETS)
        chosen = np.array([[[0, 0, 2], [1, 2, 4]], [[3, 3, 3], [4, 3, 2]]])
        scores = get_metric(name).score(counts[chosen].sum(axis=-2))
        expected = [
            [
                score_texts(name, [self.PREDICTIONS[n] for n in one], [self.TARGETS[n] for n in one])
                for one in seeds
            ]
            for seeds in chosen
        ]
        assert 0 < scores.max() <= 100
        assert scores.dtype == np.float64
        np.testing.assert_array_equal(scores, expected)

    def test_lengths_must_agree(self, name):
        with pytest.raises(ValueError, match="argument 2 is shorter"):
            score_texts(name, ["a", "b"], ["a"])


# -- the metrics of libraries

PREDICTIONS = ["the cat sat on the mat", "hello", "", "ሰላም ልጅ", "the the cat", "x"]
TARGETS = ["the cat sat on a mat today", "hello there you", "abc", "ሰላም ልጅ ነው", "the cat", "x"]


@pytest.mark.parametrize(
    ("name", "reference"),
    {
        "bleu": sacrebleu.corpus_bleu,
        "chrf++": partial(sacrebleu.corpus_chrf, word_order=2),
        "ter": sacrebleu.corpus_ter,
    }.items(),
)
def test_a_metric_of_sacrebleu_is_that_of_the_corpus(name, reference):
    for count in (1, 4, len(TARGETS)):
        predictions, targets = PREDICTIONS[:count], TARGETS[:count]
        assert score_texts(name, predictions, targets) == reference(predictions, [targets]).score


@pytest.mark.parametrize(
    ("name", "reference"),
    {
        "word_error_rate": functional.word_error_rate,
        "char_error_rate": functional.char_error_rate,
        "match_error_rate": functional.match_error_rate,
        "word_information_lost": functional.word_information_lost,
        "word_information_preserved": functional.word_information_preserved,
    }.items(),
)
def test_a_metric_of_torchmetrics_is_that_of_all_texts(name, reference):
    expected = 100 * reference(PREDICTIONS, TARGETS).item()
    assert score_texts(name, PREDICTIONS, TARGETS) == pytest.approx(expected, abs=1e-4)
    assert np.isfinite(score_texts(name, ["a b"], [""]))


ascii_texts = st.text(st.characters(max_codepoint=126), max_size=30) | st.text("ab .-_'1", max_size=30)


@given(st.lists(st.tuples(ascii_texts, ascii_texts), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_rouge_scores_on_ascii(name, pairs):
    scorer = RougeScorer([name])
    expected = 100 * np.mean([scorer.score(target, text)[name].fmeasure for text, target in pairs])
    assert score_texts(name, *zip(*pairs, strict=True)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Habari, Dodoma-2!", ["habari", "dodoma", "2"]),
        ("हिन्दी की किताब।", ["हिन्दी", "की", "किताब"]),  # marks belong to their letters
        ("ሰላም፣ ልጅ።", ["ሰላም", "ልጅ"]),
        ("東京は2度", ["東", "京", "は", "2", "度"]),  # no spaces between words: a token for each character
        ("ที่ดี", ["ที่", "ดี"]),
    ],
)
def test_rouge_reads_every_script(text, tokens):
    assert rouge_tokens(text) == tokens
    assert score_texts("rouge1", [text], [text]) == 100


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(UserError, match=r"unknown metric 'rougel'; did you mean 'rouge.*metrics are span_f1"):
        get_metric("rougel")
