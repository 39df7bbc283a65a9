"""Tasks and languages of one's own: the commands of docs/data-and-models.md, from an empty folder."""

import json
import re
import shlex

import pytest
import yaml
from tiny_runs import json_lines

import commands
from flix_lightning.common import cli
from flix_lightning.runs.run import Run
from flix_lightning.tasks.metrics import score_texts

PAGE = (commands.REPOSITORY / "docs/data-and-models.md").read_text()
TASK, MIXTURE, DATA = (
    re.search(rf"```\w+\n# ({re.escape(path)})[^\n]*\n(.*?)```", PAGE, re.DOTALL).groups()
    for path in ("mine/task/headlines.yaml", "mine/mixture/news.yaml", "data/headlines/train/news-quz.jsonl")
)
METRICS = ["rougeL", "chrf", "char_error_rate"]
LANGUAGES = ["quz", "swh_Latn", "own1"]


def command(script, holding):
    """The arguments of the page's command of that script."""
    (found,) = [one for one in re.findall(rf"python ({script} [^\n#]*)", PAGE) if holding in one]
    return shlex.split(found)[1:]


@pytest.fixture(scope="module")
def small(base):
    return [
        "logger=[csv]", f"model.pretrained={base}", "trainer.max_steps=2", "trainer.batch_size=8",
        "trainer.micro_batch_size=8", "evaluation.every=2", "flix.controls=[]", "data.max_input_length=48",
        "data.max_target_length=12", "optimizer.learning_rate=2e-2",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory, small):
    """A folder with the page's configs and with data, where the page's training was run; what it printed."""
    folder = tmp_path_factory.mktemp("home")
    files = dict([TASK, MIXTURE])
    line = json.loads(DATA[1])
    for language in LANGUAGES:
        for split, count in (("train", 6), ("validation", 2), ("test", 3)):
            lines = [{**line, "body": "b" * n, "headline": f"{language} {n}"} for n in range(count)]
            path = DATA[0].replace("train", split).replace("quz", language)
            files[path] = "".join(json.dumps(one) + "\n" for one in lines)
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder, commands.run(folder, "train.py", *command("train.py", "--config-dir"), *small)


def run_of(home):
    (run,) = (home[0] / "outputs/runs").glob("flix-news-*")
    return run


def test_training_ends_with_every_metric_of_the_task(home):
    rows = json_lines(run_of(home) / "results.jsonl")
    for split in ("validation", "test"):
        for language in LANGUAGES:
            found = [row for row in rows if (row["split"], row["language"]) == (split, language)]
            assert [row["metric"] for row in found] == METRICS
    for row in rows:
        if row["split"] == "test":
            answers = json_lines(run_of(home) / f"predictions/test-all/headlines/{row['language']}.jsonl")
            texts = ([one[key] for one in answers] for key in ("prediction", "target"))
            assert row["value"] == score_texts(row["metric"], *texts)
    for words in ("headlines: rougeL, chrf, char error rate", "average"):
        assert words in home[1].out
    assert (run_of(home) / "checkpoints/best-average.ckpt").exists()


def test_the_run_keeps_what_its_task_is(home):
    config = yaml.safe_load((run_of(home) / "config.yaml").read_text())
    assert config["tasks"].keys() == {"headlines"}
    assert config["tasks"]["headlines"]["metrics"] == METRICS
    assert config["tasks"]["headlines"]["prompt"] == "headline in {language}: {input}"


def test_predict_prompts_as_in_training(home, tmp_path):
    lines = [
        {"task": "headlines", "language": "own1", "title": "T", "body": "b"},
        {"task": "headlines", "language": "zz9", "text": "as it is"},
        {"task": "headlines", "language": "swh_Latn", "title": "T", "body": "b"},
    ]
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = [f"run={run_of(home)}", "input=lines.jsonl", "out=out", "explain=true"]
    commands.run(tmp_path, "predict.py", *asked)
    found = json_lines(tmp_path / "out")
    assert [one["read"] for one in found] == [
        "headline in My language: T - b",
        "headline in zz9: as it is",
        "headline in Swahili: T - b",
    ]
    assert {one["checkpoint"] for one in found} == {"best-average"}
    assert [one["features"] for one in found] == [
        ["task:headlines", "language:own1"],
        ["task:headlines"],
        ["task:headlines", "language:swh_Latn"],
    ]


def test_evaluate_needs_no_folder_of_configs(home):
    folder, _ = home
    asked = [one.replace("outputs/runs/NEWS", str(run_of(home))) for one in command("evaluate.py", "NEWS")]
    ran = commands.run(folder, "evaluate.py", *asked)
    assert "headlines: rougeL, chrf, char error rate" in ran.out
    written = folder.glob("outputs/evaluations/*/*/predictions/headlines/test/*.jsonl")
    assert {path.name for path in written} == {f"news-{language}.jsonl" for language in LANGUAGES}


def test_evaluate_on_a_task_and_a_language_that_the_run_was_not_trained_on(home, tmp_path):
    (tmp_path / "more/task").mkdir(parents=True)
    (tmp_path / "more/task/titles.yaml").write_text(
        'input: "{body}"\ntarget: title\nprompt: "title in {language}: {input}"\nmetrics: [bleu]\n'
    )
    (tmp_path / "data/titles/test").mkdir(parents=True)
    (tmp_path / "data/titles/test/zz9.jsonl").write_text('{"title": "T", "body": "b"}\n')
    asked = [f"run={run_of(home)}", "data.root=data"]
    refused = commands.run(tmp_path, "evaluate.py", *asked, code=1)
    assert "headlines" in refused.err
    ran = commands.run(tmp_path, "evaluate.py", *asked, "--config-dir", "more")
    assert "titles: bleu" in ran.out
    assert "zz9" in ran.err + ran.out


def test_report_and_dashboard_show_the_task(home, small):
    folder, _ = home
    unnamed = [one for one in command("train.py", "--config-dir") if not one.startswith("data.languages")]
    other = commands.run(folder, "train.py", *unnamed, *small, "flix=compute_matched")
    (said,) = [line for line in (other.out + other.err).splitlines() if "that no list names" in line]
    assert "own1" in said
    assert "quz" not in said
    (lora,) = (folder / "outputs/runs").glob("compute-matched-*")
    (asked,) = command("report.py", "NEWS")
    told = commands.run(folder, "report.py", asked.replace("outputs/runs/NEWS", str(run_of(home))), lora)
    assert "headlines" in told.out
    assert "Compute-matched" in told.out
    scores = (folder / "outputs/tables/comparison.csv").read_text()
    assert set(METRICS) <= set(scores.replace("\n", ",").split(","))
    by_settings = commands.run(folder, "report.py", *unnamed, *small, "flix=compute_matched")
    assert "headlines" in by_settings.out
    commands.run(folder, "dashboard.py")
    page = (folder / "outputs/dashboard.html").read_text()
    assert "headlines" in page
    assert "Cusco Quechua" in page
    assert "My language" in page


def test_another_definition_is_another_run_and_an_unused_task_is_not(home, small):
    folder, _ = home
    given = [*command("train.py", "--config-dir"), *small]
    given[given.index("mine")] = str(folder / "mine")
    given[given.index("data.root=data")] = f"data.root={folder / 'data'}"
    task = folder / TASK[0]

    def id_of(*more):
        (cfg,) = cli.sweep_configs([*given, *more])
        return Run.resolve(cfg).id

    first = id_of()
    assert run_of(home).name.endswith(first)
    assert Run.open(run_of(home)).tasks.get("headlines").metrics == tuple(METRICS)
    task.with_name("unused.yaml").write_text(TASK[1])
    assert id_of() == first
    ids = [first, id_of("data.languages={own1: Another}")]
    for old, new in (("headline in", "title in"), ("chrf, ", ""), ("{title} - {body}", "{body}")):
        assert old in TASK[1]
        task.write_text(TASK[1].replace(old, new))
        ids.append(id_of())
    task.write_text(TASK[1])
    assert len(set(ids)) == 5


def test_a_malformed_task_of_ones_own_is_one_line(tmp_path):
    path = tmp_path / TASK[0]
    path.parent.mkdir(parents=True)
    path.write_text(TASK[1].replace("rougeL, chrf", "rogueL, chrf"))
    for asked in (["train.py"], ["report.py", "flix=flix"]):
        told = commands.run(tmp_path, *asked, "--config-dir", "mine", code=1)
        (line,) = told.err.splitlines()
        assert line.startswith(f"error: {path}: metrics: unknown metric 'rogueL'; did you mean 'rougeL'?")
