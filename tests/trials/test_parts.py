import json
import shutil
from statistics import fmean

import pytest
from tiny_runs import do, rows

from flix_lightning.inference import Predictor
from flix_lightning.runs.run import Run
from trials.parts import main, scores


def test_a_kind_alone_scores_what_the_run_itself_tests(tiny, data, tmp_path, capsys):
    same = shutil.copytree(data, tmp_path / "data")
    for path in same.glob("*/validation/*.jsonl"):  # the run is tested on its validation data
        shutil.copy(path, same / path.parent.parent.name / "test")
    folder = do([*tiny, f"data.root={same}", "flix.controls=[[task]]", "trainer.max_steps=60"], tmp_path)
    run = Run.open(folder)
    model = Predictor(run)
    found = {}
    for active, kinds in (("all", ["task", "language"]), ("task", ["task"])):
        tested = rows(folder, split="test", active=active, seen="seen")
        found[active] = scores(run, model, kinds, "validation")
        assert found[active] == pytest.approx(
            {
                task: fmean(row["value"] for row in tested if row["task"] == task)
                for task in ("semantic_parsing", "ner")
            }
        )
    assert found["all"] != found["task"]
    for path in same.glob("*/train/*.jsonl"):
        examples = map(json.loads, path.read_text().splitlines())
        path.write_text("\n".join(json.dumps(one | {"target": "nobody answers this"}) for one in examples))
    assert max(scores(run, model, ["task", "language"], "train").values()) == 0 < max(found["all"].values())
    assert main([str(folder)]) == 0
    assert "language alone" in capsys.readouterr().out
