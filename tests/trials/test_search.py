"""The search of a method's setting, from its sweep's trials to the setting that is chosen."""

import subprocess
from itertools import product
from types import SimpleNamespace

import pytest
from examples import run

from commands import REPOSITORY
from flix_lightning.common.errors import UserError
from flix_lightning.reports.tables.search import LADDER
from trials import search

BEST = (7e-4, 0.3)  # its score is the highest on every seed


def new_trials(arguments):
    """(rate, dropout, seed) of each run of a multirun of FLix's sweep."""
    given = dict(one.split("=", 1) for one in arguments if "=" in one)
    rates = given.get("optimizer.learning_rate", "5e-4,1e-3,2e-3").split(",")
    dropouts = given.get("data.feature_dropout", "0.0,0.3,0.7").split(",")
    seeds = given.get("seed", "0").split(",")
    return [
        (float(rate), float(dropout), int(seed)) for rate, dropout, seed in product(rates, dropouts, seeds)
    ]


@pytest.fixture
def started(monkeypatch, tmp_path):
    """The trials (rate, dropout, seed) that were started, none of which is really trained."""
    started = []

    def start(command):
        assert "flix=flix" in command
        new = new_trials(command)
        assert not set(new) & set(started)
        started.extend(new)
        return subprocess.CompletedProcess(command, 0)

    def trained(arguments):
        found = []
        for rate, dropout, seed in new_trials(arguments):
            distance = abs(LADDER.index(rate) - LADDER.index(BEST[0])) + 10 * abs(dropout - BEST[1])
            settings = {
                "flix": {"name": "FLix", "dropout": dropout},
                "mixture": {"name": "joint"},
                "optimizer": {"learning_rate": rate},
                "evaluation": {"selection": "average", "validation_cap": None, "test": False},
                "seed": seed,
                "output": str(tmp_path),
            }
            found.append(run(settings, {("validation", "ner", "sw", 100): 60 - distance}))
        return found

    monkeypatch.setattr(search.subprocess, "run", start)
    monkeypatch.setattr(search, "trained", trained)
    return started


def test_a_search_goes_on_until_a_setting_is_chosen(started, tmp_path, capsys):
    assert search.main(["flix"]) == 0
    assert [seed for *_, seed in started].count(0) == 12
    assert len(started) == 16
    assert {trial[:2] for trial in started if trial[2] > 0} > {BEST}
    assert "FLix: chosen, learning rate 0.0007 with dropout 0.3" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "tables/search_flix.md").exists()


def test_a_failed_trial_ends_the_search(monkeypatch):
    monkeypatch.setattr(search.subprocess, "run", lambda command: subprocess.CompletedProcess(command, 3))
    assert search.main(["param_matched"]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "a method is needed"), (["lora"], "'lora'"), (["flix", "seed=1"], "seed=1: the search sets")],
)
def test_what_cannot_be_searched_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        search.main(arguments)


def test_a_trial_that_another_process_trains_ends_the_search(monkeypatch):
    monkeypatch.setattr(search.subprocess, "run", lambda command: subprocess.CompletedProcess(command, 0))
    unfinished = SimpleNamespace(name="flix-joint-seed0", finished=False)
    monkeypatch.setattr(search, "resolve_all", lambda cfgs: ([unfinished], []))
    with pytest.raises(UserError, match="flix-joint-seed0: another process trains this trial"):
        search.main(["flix"])


def test_make_search_searches_every_method():
    recipe = subprocess.run(
        ["make", "--dry-run", "--silent", "search"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert all(method in recipe for method in search.SWEEPS)
    assert "trials.search METHOD" in recipe
