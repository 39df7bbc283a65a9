"""Tables over what a sweep varies: dropout, languages, a search."""

from math import sqrt
from statistics import fmean, stdev

import pytest
from examples import made_up, run

from flix_lightning.common.errors import UserError
from flix_lightning.reports.tables import gates, growth, make, search, table3, table4
from flix_lightning.runs.rows import Row


def lines(report):
    return {row[0]: row[1:] for section in report.tables[0].sections for row in section.lines}


# -- Table 3


def qa_run(rate, seed, validation, test, share=0.0):
    settings = {
        "flix": {"name": "FLix", "dropout": rate},
        "mixture": {"name": "multilingual_qa_in_lang"},
        "seed": seed,
    }
    scores = {("test", "qa_in_lang", code, 300): test + offset for code, offset in (("ar", -2), ("sw", 2))}
    for step, value in ((200, 1.0), (300, validation)):
        scores |= {("validation", "qa_in_lang", code, step): value for code in ("ar", "sw")}
    return run(settings, scores, share=share)


def test_table3_has_a_line_for_each_dropout_of_ours_or_the_papers():
    runs = [qa_run(0.0, seed, 40 + seed, 50 + 3 * seed) for seed in (0, 1)]
    runs.append(qa_run(0.1, 0, 60, 70, share=0.01))
    found = lines(table3.table(runs))
    assert list(found) == ["p = 0.7", "p = 0.5", "p = 0.3", "p = 0.1", "p = 0"]
    half = 12.7062 * stdev([50, 53]) / sqrt(2)
    assert found["p = 0"] == ("40.5 ±6.4", f"{fmean([50, 53]):.1f} ±{half:.1f}", "0%", "86.9", "88.9")
    assert found["p = 0.1"] == ("60.0", "70.0", "1%", "—", "—")
    assert found["p = 0.7"] == ("—", "—", "—", "87.6†", "89.3†")


def test_table3_says_what_is_doubtful_and_what_is_missing():
    report = make("table3", [qa_run(0.3, 0, 1, 2)], ["FLix, dropout 0.5"], [])["table3"]
    assert "FLix, dropout 0.5" in report.warnings[0]
    assert any("Table 13" in note for note in report.tables[0].footnotes)


def test_table3s_curves_are_means_over_seeds_beside_the_papers():
    runs = [qa_run(0.3, 0, 60, 70), *(qa_run(0.0, seed, 40 + seed, 50 + 3 * seed) for seed in (0, 1))]
    ours, theirs = table3.curves(runs)
    assert ours.series == {"validation": [(0.0, 40.5), (0.3, 60)], "test": [(0.0, 51.5), (0.3, 70)]}
    assert theirs.series["test"] == [(0.0, 88.9), (0.3, 88.7), (0.5, 88.8), (0.7, 89.3)]


def test_a_table_of_rates_or_ranks_names_a_run_with_one_for_each_kind():
    by_kind = qa_run({"task": 0.0, "language": 0.5}, 0, 60, 70)
    with pytest.raises(UserError, match=r"FLix-.*: flix.dropout is .*; Table 3 needs one rate for all kinds"):
        table3.table([by_kind])
    by_kind.cfg.flix.ranks = {"language": {"default": 2}}
    with pytest.raises(
        UserError, match=r"flix.ranks.language is .*; Table 4 needs one rank for all languages"
    ):
        table4.table([by_kind])


# -- over languages

TRAINED = {"joint_5": ["sw", "te"], "joint": ["sw", "te", "zu"]}
GAINS = {"joint_5": 1, "joint": 4}


def language_runs(seeds=(0, 1)):
    for mixture, codes in TRAINED.items():
        for seed in seeds:
            for method, gain in (("FLix", GAINS[mixture] + 0.6 * seed), ("Compute-matched", 0.0)):
                settings = {
                    "flix": {"name": method},
                    "mixture": {"name": mixture, "train": [{"task": "ner", "languages": codes}]},
                    "seed": seed,
                }
                yield run(
                    settings,
                    {
                        ("test", task, code, 300): 30 + gain * (2 if code == "zu" else 1)
                        for task in growth.HEADS
                        for code in codes
                    },
                )


def test_differences_by_number_of_languages_on_all_and_on_the_smallest_set():
    table = growth.table(list(language_runs())).tables[0]
    everything, smallest = table.sections
    assert "sw, te" in smallest.title
    assert [row[0] for row in everything.lines[::3]] == ["2 languages (joint_5)", "3 languages (joint)"]
    # The gain is 4 and 4.6 in two seeds, twice that for one of the three languages.
    assert everything.lines[3][1:] == (f"{fmean([4, 4.6]) * 4 / 3:+.1f}",) * 5
    assert smallest.lines[3][1:] == ("+4.3",) * 5
    assert smallest.lines[0][1:] == ("+1.3",) * 5
    half = 12.7062 * stdev([4, 4.6]) / sqrt(2)
    assert smallest.lines[4][1] == f"{4.3 - half:+.1f} to {4.3 + half:+.1f}"
    assert smallest.lines[5][1] == "+4.3 to +4.3"


def test_a_size_without_its_baseline_has_no_difference():
    runs = [one for one in language_runs() if one.method == "FLix"]
    report = make("languages", runs, ["compute-matched-joint_5-seed0-0123456789"], [])["languages"]
    assert set(report.tables[0].sections[0].lines[0][1:]) == {"—"}
    assert "compute-matched-joint_5-seed0" in report.warnings[0]


# -- a search


@pytest.mark.parametrize(("selection", "ner"), [("task", "30.0"), ("average", "20.0")])
def test_a_search_puts_the_best_trial_first(selection, ner):
    def trial(rate, qa):
        settings = {
            "flix": {"name": "FLix", "dropout": 0.1},
            "mixture": {"name": "joint"},
            "optimizer": {"learning_rate": rate},
            "evaluation": {"selection": selection, "validation_cap": None, "test": False},
            "seed": 0,
        }
        steps = {100: (30.0, qa - 20), 200: (20.0, qa)}
        scores = {
            ("validation", task, code, step): value
            for step, values in steps.items()
            for task, value in zip(("ner", "qa_in_lang"), values, strict=True)
            for code in ("sw", "yo")
        }
        return run(settings, scores)

    (section,) = search.table([trial(1e-3, 50), trial(2.8e-3, 60)]).tables[0].sections
    assert section.title == "FLix"
    assert [row[0] for row in section.lines] == ["0.0028", "0.001"]
    assert section.lines[0][1:] == ("0.1", "0", ner, "60.0", f"{fmean([float(ner), 60]):.2f}")


def trials(scores):
    """A run of FLix-shared for each (learning rate, dropout, seed) of `scores`."""
    for (rate, dropout, seed), score in scores.items():
        settings = {
            "flix": {"name": "FLix-shared", "dropout": {"task": dropout, "language": dropout, "shared": 0.0}},
            "mixture": {"name": "joint"},
            "optimizer": {"learning_rate": rate},
            "evaluation": {"selection": "average", "validation_cap": None, "test": False},
            "seed": seed,
        }
        yield run(settings, {("validation", "ner", "sw", 100): score})


def test_trials_say_how_features_were_dropped():
    by_kind, rescaled = trials({(1e-3, 0.3, 0): 20.0, (1e-3, 0.5, 0): 10.0})
    rescaled.cfg.flix.update(dropout=0.5, rescale=True)
    (section,) = search.trials([by_kind, rescaled]).tables[0].sections
    assert [row[1] for row in section.lines] == ["task 0.3, language 0.3, shared 0", "0.5, rescaled"]


def following(scores):
    return str(search.next_trial(list(trials(scores))))


NINE = {(rate, dropout, 0): 50.0 for rate in (5e-4, 1e-3, 2e-3) for dropout in (0.0, 0.3, 0.7)}


@pytest.mark.parametrize(
    ("best", "wanted"),
    [
        ((1e-3, 0.3, 0), "learning rate 0.0007 with dropout 0.3, seed 0"),  # 0.0014 is as near
        ((5e-4, 0.0, 0), "learning rate 0.00035 with dropout 0, seed 0"),
        ((2e-3, 0.7, 0), "learning rate 0.0014 with dropout 0.7, seed 0"),
    ],
)
def test_a_search_goes_on_beside_its_best_trial(best, wanted):
    assert following({**NINE, best: 60.0}) == f"next, {wanted}"


def test_a_search_that_lacks_its_first_seed_goes_on_with_it():
    assert following({(1e-3, 0.3, 1): 60.0}) == "next, learning rate 0.001 with dropout 0.3, seed 0"


def test_a_search_ends_with_two_settings_on_three_seeds():
    more = {(rate, 0.3, 0): 40.0 for rate in (7e-4, 1.4e-3, 2.8e-3)}
    found = {**NINE, **more, (1e-3, 0.3, 0): 60.0, (2e-3, 0.3, 0): 59.0}
    assert following(found) == "next, learning rate 0.001 with dropout 0.3, seeds 1, 2"
    found |= {(1e-3, 0.3, 1): 50.0, (1e-3, 0.3, 2): 50.0}
    assert following(found) == "next, learning rate 0.002 with dropout 0.3, seeds 1, 2"
    found |= {(2e-3, 0.3, 1): 56.0}
    assert following(found) == "next, learning rate 0.002 with dropout 0.3, seed 2"
    found |= {(2e-3, 0.3, 2): 50.0}
    assert following(found) == "chosen, learning rate 0.002 with dropout 0.3"


# -- gates


def gate_runs(frozen, adapted):
    """Compute-matched LoRA on both mixtures, one language a column; scores in the order of Table 1."""
    places = [
        ("joint", "ner", "seen"),
        ("joint", "semantic_parsing", "seen"),
        ("joint", "qa_in_lang", "seen"),
        ("joint", "qa_cross_lang", "seen"),
        ("joint", "qa_cross_lang", "unseen_combination"),
        ("semantic_parsing_holdout", "semantic_parsing", "unseen_combination"),
        ("joint", "qa_cross_lang", "unseen_language"),
    ]
    found = {}
    for (mixture, task, seen), scores in zip(places, zip(frozen, adapted, strict=True), strict=True):
        for active, value in zip(("none", "all"), scores, strict=True):
            row = Row(
                run=mixture, method="Compute-matched", mixture=mixture, seed=0, split="test", task=task,
                language="hi" if seen == "unseen_combination" else "as" if seen != "seen" else "ar",
                seen=seen, active=active, metric="exact_match", value=value, n=10, step=300,
            )  # fmt: skip
            found.setdefault(mixture, []).append(row)
    return [made_up(rows) for rows in found.values()]


@pytest.fixture
def guessing(monkeypatch):
    """Guesses by column, in the order of Table 1."""

    def use(scores):
        columns = iter(scores)
        monkeypatch.setattr(gates, "_guess", lambda run, row: next(columns))

    return use


def test_gates_pass_column_by_column(guessing):
    guessing([25.0, 25.0, 25.0, 25.0, 0.0, 0.0, 40.0])
    frozen = [0.0, 24.9, 50.0, 10.0, 10.0, 80.0, 0.0]
    adapted = [35.0, 35.0, 59.9, 34.9, 89.9, 90.0, 50.0]
    report = gates.table(gate_runs(frozen, adapted))
    found = lines(report)
    assert list(found) == ["Guessing", "Frozen base", "Compute-matched LoRA", "Passed"]
    assert found["Passed"] == ("yes", "yes", "no", "no", "yes", "no", "yes")
    assert found["Guessing"][6] == "40.0"
    assert report.failed


def test_gates_pass_where_all_columns_do(guessing):
    guessing([25.0] * 7)
    assert not gates.table(gate_runs([10.0] * 7, [60.0] * 7)).failed


def test_gates_without_a_run_say_so(guessing):
    guessing([25.0] * 7)
    report = make("gates", gate_runs([1.0] * 7, [50.0] * 7)[:1], ["compute-matched-holdout"], [])["gates"]
    assert lines(report)["Passed"] == ("yes",) * 5 + ("—", "yes")
    assert "compute-matched-holdout" in report.warnings[0]
    assert report.failed
