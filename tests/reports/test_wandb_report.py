"""The W&B report as far as it goes offline: its JSON, and that what it shows is what runs log."""

import json
import re

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf
from tiny_runs import config, do

from flix_lightning.reports.columns import TABLE1, TABLE2
from flix_lightning.reports.wandb_report import main, report
from flix_lightning.runs.rows import Row
from flix_lightning.training.loggers import log_evaluation


@pytest.fixture(scope="module")
def spec():
    """The JSON that would be sent; to ask W&B for anything fails, as there is no account."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wandb, "Api", lambda *_, **__: pytest.fail("asks W&B"))
        return report("someone", "flix-lightning")._to_model().model_dump(mode="json", by_alias=True)


def texts(node):
    """Every text in plain data."""
    if isinstance(node, dict):
        return [text for one in node.items() for text in texts(list(one))]
    if isinstance(node, list):
        return [text for one in node for text in texts(one)]
    return [node] if isinstance(node, str) else []


def named(spec, pattern):
    return {found[1] for text in texts(spec) if (found := re.fullmatch(pattern, text))}


def test_every_score_it_shows_is_one_that_evaluations_log(spec, tmp_path):
    columns = [column for column in (*TABLE1, *TABLE2) if column.task]
    logger = CSVLogger(tmp_path, name="", version="")
    for split in ("validation", "test"):
        common = {"run": "r", "method": "FLix", "mixture": "joint", "seed": 0, "split": split}
        common |= {"language": "sw", "active": "all", "metric": "m", "value": 1.0, "n": 1, "step": 1}
        rows = [Row(**common, task=one.task, seen=one.seen) for one in columns]
        log_evaluation([logger], rows, 1)
    (line, *_) = (tmp_path / "metrics.csv").read_text().splitlines()
    shown = named(spec, r"(?:summary_metrics\.|summary:)?((?:val|test)/\w+/mean\w*)")
    assert {f"test/{one.task}/mean" for one in columns} <= shown <= set(line.split(","))
    assert "test/qa_cross_lang/mean_unseen_language" in shown
    assert "val/ner/mean" in shown


def test_the_loss_it_shows_is_logged_by_training(spec, tiny, tmp_path):
    folder = do([*tiny, "trainer.max_steps=10", "evaluation.every=10", "evaluation.test=false"], tmp_path)
    (metrics,) = folder.glob("metrics/*/metrics.csv")
    assert named(spec, "(train/.*)") == {"train/loss"} <= set(metrics.read_text().splitlines()[0].split(","))


def test_the_settings_it_goes_by_are_those_of_a_run(spec):
    cfg = config([])
    keys = named(spec, r"(?:config[.:])?(flix\.value\.[\w.]+)")
    assert {key.replace(".value", "", 1) for key in keys} == {
        "flix.name",
        "flix.dropout",
        "flix.ranks.language",
    }
    for key in keys:
        assert OmegaConf.select(cfg, key.replace(".value", "", 1)) is not None


def test_its_runs_are_found_by_the_mixture_that_is_their_job_type(spec):
    mixtures = {one.mixture for one in (*TABLE1, *TABLE2) if one.task}
    filters = [one for one in found(spec, "filters") if isinstance(one, list) for one in one]
    assert {one["key"]["name"] for one in filters} == {"jobType"}
    assert {one["value"] for one in filters} == mixtures


def found(node, key):
    """Every value of that key in plain data."""
    if isinstance(node, dict):
        own = [node[key]] if key in node else []
        return own + [value for one in node.values() for value in found(one, key)]
    return [value for one in node for value in found(one, key)] if isinstance(node, list) else []


def test_the_command_prints_it_without_an_account(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["wandb_report", "someone", "--spec"])
    main()
    assert json.loads(capsys.readouterr().out)["project"] == {
        "name": "flix-lightning",
        "entityName": "someone",
    }
    monkeypatch.setattr("sys.argv", ["wandb_report", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert "your own W&B account" in capsys.readouterr().out
