import json
from pathlib import Path

import pytest
import sacrebleu
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flix_lightning.tasks.metrics import METRICS, ChrF, ExactMatch, SpanF1, TokenF1

CASES = Path(__file__).parents[3] / "shared/data/metric-cases.jsonl"


def score(metric, predictions, targets):
    metric.update(predictions, targets)
    return metric.compute().item()


def test_every_case_of_xtreme_ups_own_scorer():
    if not CASES.is_file():
        pytest.skip(f"{CASES} is not there: XTREME-UP's scored cases stand beside the checkout")
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    wrong = [
        (number, case["metric"], case["score"])
        for number, case in enumerate(cases, start=1)
        if score(METRICS[case["metric"]](), case["predictions"], case["targets"])
        != pytest.approx(case["score"], abs=1e-6)
    ]
    assert len(cases) == 61
    assert wrong == []


@pytest.mark.parametrize(
    ("predictions", "targets", "expected"),
    [
        (["PER: Ann"], ["PER: Ann"], 100),
        (["PER: Ann $$ LOC: Rome"], ["PER: Ann"], 200 / 3),  # 1 right of 2, 1 wanted: 2*1/(2+1)
        (["PER: Ann $$ PER: Ann"], ["PER: Ann"], 200 / 3),  # a repeat is wrong
        (["PER: Ann $$ PER: Ann"], ["PER: Ann $$ PER: Ann"], 100),  # unless wanted twice
        (["LOC: Rome", ""], ["", "LOC: Rome"], 0),  # matched within a sentence only
        (["PER: Ann", "LOC: Rome"], ["PER: Ann", "LOC: Paris"], 50),  # over all sentences together
        (["per: ann"], ["PER: Ann"], 0),
        ([" PER :  Ann "], ["PER: Ann"], 100),
        (["DATE: 10:00 $$ PER: Ann"], ["PER: Ann"], 100),  # a second colon: no entity
        (["PER: Ann"], ["DATE: 10:00 $$ PER: Ann"], 100),
        (["PER: Ann$$LOC: Rome"], ["PER: Ann $$ LOC: Rome"], 0),
        (["", "nothing"], ["", ""], 0),
    ],
)
def test_span_f1_by_hand(predictions, targets, expected):
    assert score(SpanF1(), predictions, targets) == pytest.approx(expected, abs=1e-9)


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
    assert score(ExactMatch(), predictions, targets) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("predictions", "targets", "expected"),
    [
        (["red car"], ["car"], 200 / 3),  # precision 1/2, recall 1
        (["The Car!"], ["a car"], 100),
        (["cat cat"], ["cat"], 200 / 3),  # tokens match as a bag
        (["a.n"], ["an"], 0),  # punctuation goes before articles: both become `an`, then nothing
        (["theatre"], ["atre"], 0),  # an article is a whole word
        (["car", "bus"], ["car", "van"], 50),  # mean over examples
        (["東京。"], ["東京"], 0),  # only ASCII punctuation goes
        (["the"], ["a"], 0),  # both empty: 0, not 100
        ([""], ["car"], 0),
    ],
)
def test_token_f1_by_hand(predictions, targets, expected):
    assert score(TokenF1(), predictions, targets) == pytest.approx(expected, abs=1e-9)


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
    assert score(ChrF(), predictions, targets) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", METRICS)
class TestEveryMetric:
    PREDICTIONS = ("PER: Ann", "a b c", "LOC: x $$ PER: Bo", "", "abc def")
    TARGETS = ("PER: Ann", "a b d", "LOC: y $$ PER: Bo", "PER: Cy", "abc deg")

    def test_batches_and_processes_add_up(self, name):
        whole = score(METRICS[name](), self.PREDICTIONS, self.TARGETS)
        first, second = METRICS[name](), METRICS[name]()
        first.update(self.PREDICTIONS[:1], self.TARGETS[:1])
        first.update(self.PREDICTIONS[1:3], self.TARGETS[1:3])
        second.update(self.PREDICTIONS[3:], self.TARGETS[3:])
        first.merge_state(second)
        assert 0 < whole < 100
        assert first.compute().item() == pytest.approx(whole, abs=1e-12)

    def test_state_has_one_shape_and_is_summed(self, name):
        # What a process holds before and after its examples reduces alike, or processes would wait for ever.
        metric = METRICS[name]()
        before = {key: value.shape for key, value in metric.metric_state.items()}
        metric.update(self.PREDICTIONS, self.TARGETS)
        assert {key: value.shape for key, value in metric.metric_state.items()} == before
        assert all(reduction is not None for reduction in metric._reductions.values())
        assert metric.sums.dtype is torch.float64

    def test_reset_forgets(self, name):
        metric = METRICS[name]()
        metric.update(["wrong"], ["PER: right"])
        metric.reset()
        assert score(metric, ["PER: Ann Bol"], ["PER: Ann Bol"]) == pytest.approx(100)

    def test_lengths_must_agree(self, name):
        with pytest.raises(ValueError, match="2 predictions for 1 targets"):
            METRICS[name]().update(["a", "b"], ["a"])
