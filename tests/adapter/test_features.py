import json
import logging
import math
import random
import subprocess
import sys

import pytest
import torch

from flix_lightning.adapter.features import FeatureDropout, FeatureSpace, resolve_lora_rank, resolve_ranks
from flix_lightning.common.errors import UserError

RANKS = {"task:ner": 2, "task:qa": 1, "language:sw": 3, "script:latin": 0}


@pytest.mark.parametrize(
    ("features", "index", "uniform"),
    [
        ([("task:qa",)], [[2]], True),
        ([("task:ner", "language:sw"), ("task:qa",)], [[0, 1, 3, 4, 5], [2, 6, 6, 6, 6]], False),
        ([("language:sw", "task:ner"), ("task:ner", "language:sw")], [[0, 1, 3, 4, 5]] * 2, True),
        ([("task:ner", "task:ner")], [[0, 1]], True),
        ([("task:qa", "language:xx"), {"task:qa"}], [[2], [2]], True),
        ([(), ("script:latin",), ("colour:red",)], [[6], [6], [6]], True),
        ([("task:qa",), ()], [[2], [6]], False),
    ],
)
def test_rows(features, index, uniform):
    rows = FeatureSpace(RANKS).rows(features)
    assert rows.index.tolist() == index
    assert rows.index.dtype == torch.long
    assert rows.uniform is uniform


def test_frozen_features_have_rows_and_are_not_counted_as_trained():
    space = FeatureSpace(RANKS, frozen=["task:ner", "script:latin"])
    assert space.rows([("task:ner", "language:sw"), ("task:qa",)]).index.tolist() == [
        [0, 1, 3, 4, 5],
        [2, 6, 6, 6, 6],
    ]
    assert (space.total_rank, space.trained_rank) == (6, 4)
    with pytest.raises(UserError, match="every feature is frozen or has rank 0"):
        FeatureSpace(RANKS, frozen=["task:ner", "task:qa", "language:sw"])


def test_sizes():
    space = FeatureSpace(RANKS)
    assert (space.total_rank, space.null_row, space.ranks) == (6, 6, RANKS)
    assert space.active_rank(["language:sw", "task:qa", "task:qa", "script:latin", "language:xx"]) == 4
    assert space.active_rank([]) == 0


def test_an_unknown_feature_is_said_once(caplog):
    space = FeatureSpace(RANKS)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            space.rows([("task:ner", "language:xx"), ("language:yy", "script:latin")])
            space.active_rank(["language:xx"])
    said = [record.getMessage() for record in caplog.records]
    assert sum("language:xx" in line for line in said) == 1
    assert sum("language:yy" in line for line in said) == 1
    assert len(said) == 1  # one line for a batch, not one a feature


@pytest.mark.parametrize(
    ("ranks", "named"),
    [
        ({"task:ner": -1}, "task:ner"),
        ({"task:ner": 1.5}, "task:ner"),
        ({"task:ner": True}, "task:ner"),
        ({"task:ner": 0, "task:qa": 0}, "rank 0"),
        ({}, "rank 0"),
        ({"ner": 2}, "'ner'"),
        ({"task:": 2}, "'task:'"),
        ({":ner": 2}, "':ner'"),
    ],
)
def test_a_bad_space_is_refused(ranks, named):
    with pytest.raises(UserError, match=named):
        FeatureSpace(ranks)


IDS = [f"ner/sw/{i}" for i in range(400)]
NAMES = ("task:ner", "language:sw", "shared:all")


def kept(dropout, step=0, ids=IDS):
    return dropout([NAMES] * len(ids), ids, step)


def test_dropout_is_the_same_under_any_batching_order_and_resume():
    whole = dict(zip(IDS, kept(FeatureDropout(7, 0.5), step=3), strict=True))

    shuffled = random.Random(0).sample(IDS, len(IDS))
    resumed = FeatureDropout(7, 0.5)
    torch.manual_seed(123)
    in_parts = {}
    for start in range(
        0, len(shuffled), 37
    ):  # other batches, in another order, in accumulation's or ranks' parts
        ids = shuffled[start : start + 37]
        torch.rand(5)
        kept(resumed, step=1, ids=ids)
        in_parts |= dict(zip(ids, kept(resumed, step=3, ids=ids), strict=True))
    assert in_parts == whole

    one_feature_at_a_time = {i: tuple(f for f in NAMES if resumed([(f,)], [i], 3) == [(f,)]) for i in IDS}
    assert one_feature_at_a_time == whole


def test_dropout_is_the_same_in_another_process():
    code = (
        "import json; from flix_lightning.adapter.features import FeatureDropout;"
        f"print(json.dumps(FeatureDropout(7, 0.5)([{NAMES!r}] * 50, {IDS[:50]!r}, 3)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert [tuple(names) for names in json.loads(output)] == kept(FeatureDropout(7, 0.5), 3, IDS[:50])


def test_dropout_leaves_the_generators_alone():
    before = torch.get_rng_state(), random.getstate()
    kept(FeatureDropout(0, 0.5))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def draws(seed, steps, rates):
    """Return 0 or 1 for each (step, example, feature): was it kept?"""
    dropout = FeatureDropout(seed, rates)
    flags = [[f in names for f in NAMES] for step in steps for names in kept(dropout, step)]
    return torch.tensor(flags, dtype=torch.float64)


@pytest.mark.parametrize("rates", [0.7, {"task": 0.3, "language": 0.7}])
def test_what_is_kept_is_rescaled_to_the_expectation_without_dropout(rates):
    dropout = FeatureDropout(0, rates, rescale=True)
    flags = draws(0, range(50), rates)
    factors = torch.tensor([dropout.factor(name) for name in NAMES])
    assert (flags * factors).mean(0).tolist() == pytest.approx([1.0] * 3, abs=0.06)
    assert FeatureDropout(0, rates).factor is None


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.5, 0.7, 0.99])
def test_dropout_rate(rate):
    flags = draws(0, range(25), rate)
    sigma = math.sqrt(rate * (1 - rate) / len(flags))
    assert flags.mean(0).tolist() == pytest.approx([1 - rate] * 3, abs=5 * sigma)


def test_features_examples_steps_and_seeds_are_drawn_independently():
    here = draws(0, range(25), 0.7)
    others = {
        "feature": here.roll(1, dims=1),
        "example": here.roll(1, dims=0),
        "step": draws(0, range(1, 26), 0.7),
        "seed": draws(1, range(25), 0.7),
    }
    for name, there in others.items():
        # Both dropped: 0.7 squared, the share of examples that train nothing in the paper's set-up.
        both = ((1 - here) * (1 - there)).mean().item()
        assert both == pytest.approx(0.49, abs=0.015), name


def test_each_kind_has_its_own_rate():
    flags = draws(0, range(25), {"task": 0.2, "language": 0.8})
    assert flags.mean(0).tolist() == pytest.approx([0.8, 0.2, 1.0], abs=0.02)
    assert flags[:, 2].all()


@pytest.mark.parametrize("rate", [1, 1.0, -0.1, math.nan, math.inf, "0.5", None, True])
def test_a_bad_rate_is_refused(rate):
    with pytest.raises(UserError, match=r"every kind.*\[0, 1\)"):
        FeatureDropout(0, rate)
    with pytest.raises(UserError, match=r"language.*\[0, 1\)"):
        FeatureDropout(0, {"task": 0.5, "language": rate})


@pytest.mark.parametrize(("key", "name"), [(2020, "2020"), (-1, "-1"), (1.5, "1.5"), ("007", "007")])
def test_a_name_may_be_a_number(key, name):
    """As YAML and Hydra read it where it is not quoted."""
    trained = [{"task": "ner", "year": name}, {"task": "ner", "year": "other"}, {"task": "ner", name: "x"}]
    assert resolve_ranks({"year": {key: 3, "default": 1}}, trained) == {
        f"year:{name}": 3,
        "year:other": 1,
    }
    assert resolve_ranks({key: 3}, trained) == {f"{name}:x": 3}
    assert FeatureDropout(0, {key: 0.999999})([[f"{name}:x", "task:ner"]], ["a"], 0) == [("task:ner",)]


TRAINED = [
    {"task": "ner", "language": "sw", "shared": "all", "script": "latin"},
    {"task": "qa", "language": "am", "shared": "all"},
    {"task": "qa", "language": "sw", "shared": "all", "script": "latin"},
]
PAPER = {"task": 4, "language": 2}


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        (PAPER, {"task:ner": 4, "task:qa": 4, "language:sw": 2, "language:am": 2}),
        ({"language": 1, "task": 3}, {"language:sw": 1, "language:am": 1, "task:ner": 3, "task:qa": 3}),
        ({"language": {"default": 1, "am": 5}}, {"language:sw": 1, "language:am": 5}),
        ({"language": {"sw": 0, "am": 5}}, {"language:sw": 0, "language:am": 5}),
        ({"script": 2}, {"script:latin": 2}),
        ({"shared": 4, "task": 0}, {"shared:all": 4, "task:ner": 0, "task:qa": 0}),
    ],
)
def test_resolve_ranks(ranks, expected):
    assert list(resolve_ranks(ranks, TRAINED).items()) == list(expected.items())


@pytest.mark.parametrize(
    ("ranks", "trained", "named"),
    [
        (PAPER, [], "empty"),
        (
            {"language": {False: 2, "default": 1}},
            TRAINED,
            "ranks.language: YAML reads an unquoted no as false",
        ),
        (
            {"language": {True: 2, "default": 1}},
            TRAINED,
            "ranks.language: YAML reads an unquoted yes as true",
        ),
        ({None: 2}, TRAINED, "ranks: a name is missing"),
        ({"language": {2020: 2, "2020": 3, "default": 1}}, TRAINED, "ranks.language names '2020' twice"),
        ({"task": -1}, TRAINED, "task.*-1"),
        ({"task": 1.5}, TRAINED, r"task.*1\.5"),
        ({"task": None}, TRAINED, "task.*None"),
        ({"task": True}, TRAINED, "task.*True"),
        ({"task": "4"}, TRAINED, "task.*'4'.*whole number"),
        ({"task": {"ner": 2, "qa": -2}}, TRAINED, "task.qa.*-2"),
        ({"task": {"default": -2}}, TRAINED, "task.default.*-2"),
        ({"task": 0, "language": 0}, TRAINED, "all 0"),
        ({}, TRAINED, "all 0"),
        ({"taks": 4}, TRAINED, "taks.*task, language, shared, script"),
        ({"task": {"ner": 2}}, TRAINED, "task.*qa"),
        ({"task": {"default": 2, "nre": 3}}, TRAINED, "nre.*ner, qa"),
    ],
)
def test_a_bad_table_of_ranks_is_refused(ranks, trained, named):
    with pytest.raises(UserError, match=named):
        resolve_ranks(ranks, trained)


@pytest.mark.parametrize(
    ("rank", "ranks", "expected"),
    [
        ("max_active", PAPER, 6),
        ("total", PAPER, 12),
        ("max_active", {"task": {"ner": 1, "qa": 4}, "script": 3}, 7),
        ("total", {"task": {"ner": 1, "qa": 4}, "script": 3}, 8),
        (3, PAPER, 3),
    ],
)
def test_the_rank_of_a_lora(rank, ranks, expected):
    assert resolve_lora_rank(rank, resolve_ranks(ranks, TRAINED), TRAINED) == expected


@pytest.mark.parametrize("rank", ["max_activ", "6", -1, 1.5, True])
def test_a_bad_rank_of_a_lora_is_refused(rank):
    with pytest.raises(UserError, match=f"flix.lora_rank is {rank!r}, .*a whole number"):
        resolve_lora_rank(rank, {"task:ner": 4}, TRAINED)
