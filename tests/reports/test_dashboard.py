"""The page of made-up runs of Table 1, as a reader of HTML and a browser have it."""

import csv
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from statistics import fmean

import pytest
from browser import chromium, look, requested
from folders import line_of, write_split
from omegaconf import OmegaConf
from selenium.webdriver.common.keys import Keys
from swept import swept
from tiny_runs import do

import commands
from flix_lightning.common.files import write_atomic
from flix_lightning.reports.dashboard.curves import curves
from flix_lightning.runs import rows as results
from flix_lightning.runs.predictions import Prediction, write_predictions
from flix_lightning.runs.rows import Row
from flix_lightning.runs.run import Run, resolve_all
from flix_lightning.tasks.definitions import shipped_tasks

#: What there is of each task: enough for every column of Table 1.
DATA = {
    "ner": ["sw", "yo"],
    "semantic_parsing": ["en", "hi", "sw"],
    "qa_in_lang": ["ar", "sw"],
    "qa_cross_lang": ["ar", "hi", "ur"],  # ur is never trained on, hi is in another task
}
COUNT = 4  # examples of each
ATTACK = "</pre></dd><script>window.hit = 1</script><img src=x onerror='window.hit = 1'>"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A folder of data whose inputs and targets attack the page."""
    folder = tmp_path_factory.mktemp("texts")
    for task, languages in DATA.items():
        for split in ("train", "validation", "test"):
            for language in languages:
                lines = [
                    line_of(task, f"{ATTACK} {task} text {n}", f"{task} target {n}") for n in range(COUNT)
                ]
                write_split(folder, task, split, language, lines)
    return folder


def score(method, task, language, seed):
    """A made-up score: FLix is ahead but in Yoruba."""
    gain = {"FLix": 6, "Param-matched": 2, "Compute-matched": 0}[method]
    return 40.0 + len(task) + seed + (-gain if language == "yo" else gain)


def finish(plan):
    """Leave what a run of that plan would, with made-up scores."""
    cfg, folder = plan.cfg, plan
    method, seed = cfg.flix.name, cfg.seed
    common = {"run": folder.id, "method": method, "mixture": plan.mixture.name, "seed": seed}
    nothing = {"task": None, "language": None, "seen": None, "active": "all"}
    facts = {"rank": 6, "total_parameters": 1234, "seconds": 75.0}
    rows = [
        Row(**common, **nothing, split="train", metric=key, value=value, n=8, step=20)
        for key, value in facts.items()
    ]
    for dataset in plan.mixture.evaluate:
        place = {"task": dataset.task, "language": dataset.language, "seen": dataset.seen, "active": "all"}
        place |= {"metric": shipped_tasks()[dataset.task].metric, "n": COUNT}
        value = score(method, dataset.task, dataset.language, seed)
        rows.append(Row(**common, **place, split="test", value=value, step=20))
        if dataset.seen == "seen":
            for step in (10, 20):
                rows.append(Row(**common, **place, split="validation", value=value + step, step=step))
        examples = list(plan.layout.read(dataset.task, "test", dataset.language))
        write_predictions(
            folder.predictions_path("test-all", dataset.task, dataset.language),
            [
                Prediction(one.id, ATTACK if number else one.target, one.target)
                for number, one in enumerate(examples)
            ],
        )
    write_atomic(folder.config, f"# {ATTACK}\n" + OmegaConf.to_yaml(cfg, resolve=True))
    write_atomic(folder.metrics / "version_0/metrics.csv", "epoch,step,train/loss\n0,9,2.5\n0,19,1.5\n")
    results.write(folder.results, rows)


@pytest.fixture(scope="module")
def overrides(texts, tmp_path_factory):
    output = tmp_path_factory.mktemp("dashboard") / "outputs"
    return ["data=xtreme_up", f"data.root={texts}", "data.allow_missing=true", f"output={output}"]


@pytest.fixture(scope="module")
def page(overrides, texts, tiny, tmp_path_factory):
    """The command's page of two whole seeds of Table 1 and half of a third, beside a run that was trained."""
    plans, _ = resolve_all(swept("table1", "seed=0,1,2", *overrides))
    output = plans[0].path.parents[1]
    for plan in plans:
        if plan.cfg.seed < 2 or plan.mixture.name == "joint":
            finish(plan)
    do([*tiny, "trainer.max_steps=12", "evaluation.every=4"], output)
    ran = commands.run(tmp_path_factory.mktemp("command"), "dashboard.py", *overrides)
    assert ran.out.startswith(f"{output}/dashboard.html: ")
    assert ran.err == ""
    return output / "dashboard.html"


class Reader(HTMLParser):
    """The tags and attributes of a page, and its text below each id of a section."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text, self.section = [], [], {}, None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "section":
            self.section = dict(attrs)["id"]

    def handle_data(self, data):
        self.text[self.section] = " ".join([self.text.get(self.section, ""), *data.split()])


@pytest.fixture(scope="module")
def read(page):
    return Reader(page.read_text())


def minus(baseline, task, languages, seeds=(0, 1)):
    """FLix minus the baseline in made-up scores."""
    return fmean(
        score("FLix", task, code, seed) - score(baseline, task, code, seed)
        for code in languages
        for seed in seeds
    )


def test_what_data_says_is_text_and_never_markup(read, page):
    assert read.tags.count("script") == 1
    assert "img" not in read.tags
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert ATTACK in read.text["samples"]
    assert ATTACK in read.text["runs"]  # a config
    # And were it markup, only the page's own script would run.
    html = page.read_text()
    (script,) = re.findall("<script>(.*?)</script>\n</body>", html, re.DOTALL)
    own = b64encode(sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{own}'; style-src" in html


def test_nothing_is_loaded_from_elsewhere(read):
    addresses = [value for name, value in read.attributes if name in ("src", "href", "action", "data")]
    assert {value[0] if value.startswith("#") else value for value in addresses} == {"#", "data:,"}
    assert "url(" not in "".join(read.text.values())


def test_the_answer_is_table_1s_difference_of_the_whole_seeds(read):
    answer = read.text["answer"]
    assert "2 seeds (0, 1)" in answer
    columns = {
        "ner": ["sw", "yo"],
        "semantic_parsing": ["en", "hi", "sw"],
        "qa_in_lang": ["ar", "sw"],
        "qa_cross_lang": ["ar"],
    }
    found = [minus("Compute-matched", *one) for one in columns.items()]
    zero_shot = [("qa_cross_lang", ["hi"]), ("semantic_parsing", ["sw"]), ("qa_cross_lang", ["ur"])]
    average = fmean([*found, *(minus("Compute-matched", *one) for one in zero_shot)])
    assert f"{average:+.1f}" in answer.partition("Param-matched")[0]
    assert "one seed" not in answer


def test_the_heat_map_is_flix_minus_the_baseline_in_each_language(read):
    assert "Yoruba yo -6.0" in read.text["languages"]
    assert ("title", "Yoruba, NER: FLix 37.5, Compute-matched 43.5") in read.attributes
    assert ("title", "Swahili, NER: FLix 49.5, Param-matched 45.5") in read.attributes


def test_what_is_missing_is_named_with_the_command_that_makes_it(read, overrides):
    missing = read.text["missing"]
    given = " ".join(overrides)
    assert f"train.py -m +sweeps=table5 {given}" in missing
    assert "3 of 6 on seed 2; not in the table" in missing
    assert f"train.py -m +sweeps=table1 {given} seed=2" in missing
    assert f"train.py -m +sweeps=table4 {given}" in read.text["curves"]
    assert "Nothing" not in missing


def test_texts_that_the_licence_keeps_are_not_there(read):
    assert "ner: its texts are left out" in read.text["samples"]
    assert "ner text" not in read.text["samples"]
    assert "ner target" not in read.text["samples"]
    for task in ("semantic_parsing", "qa_in_lang", "qa_cross_lang"):
        assert f"{task} target" in read.text["samples"]


def test_ten_predictions_of_a_task_are_shown_beside_their_targets(page):
    html = page.read_text().partition('<section id="samples"')[2].partition("</section>")[0]
    tasks = re.findall(r"<summary>(\w+)</summary>(.*?)</details>", html, re.DOTALL)
    # Two datasets with four examples each; three (one of them zero-shot); and four (likewise).
    assert {task: len(re.findall("<dl [^>]*[^n]>", text)) for task, text in tasks} == {
        "qa_in_lang": 8, "qa_cross_lang": 10, "semantic_parsing": 10,
    }  # fmt: skip
    for task, text in tasks:
        first, *_ = re.findall("<dl .*?</dl>", text, re.DOTALL)
        answers = re.findall(r"<dt>([\w-]+) <span class=\"facts\">(\d+)</span></dt><dd.*?>(.*?)</dd>", first)
        (target,) = re.findall("<dt>Target</dt><dd.*?>(.*?)</dd>", first)
        assert [method for method, *_ in answers] == ["Compute-matched", "Param-matched", "FLix"]
        assert target.startswith(f"{task} target")
        for _, score, answer in answers:
            assert (answer == f"✓ {target}") == (score == "100")
        # Every language is there for the filter.
        languages = set(re.findall(r'data-language="(\w+) ', text))
        assert languages == set(DATA[task])


def test_every_finished_run_is_there_with_its_config(read, page):
    runs = [path.parent for path in page.parent.glob("runs/*/results.jsonl")]
    assert len(runs) == 16
    for run in runs:
        assert str(run) in read.text["runs"]
    assert "max_target_length: 4" in read.text["runs"]  # of the run that was trained


def test_a_trained_run_has_its_curves(page):
    (folder,) = page.parent.glob("runs/*-tiny-*")
    run = Run.open(folder)
    validation, loss = curves(run)
    steps = {row.step for row in run.rows if row.split == "validation"}
    assert {step for points in validation.series.values() for step, _ in points} == steps == {4, 8, 12}
    assert set(validation.series) == {"semantic_parsing", "ner"}
    (points,) = loss.series.values()
    (log,) = run.metrics.glob("*/metrics.csv")
    assert len(points) == sum(bool(line["train/loss"]) for line in csv.DictReader(log.open())) > 0
    assert all(1 <= step <= 12 and value > 0 for step, value in points)


def test_a_broken_result_leaves_the_page_as_it_was(page, overrides, tmp_path):
    before = page.read_bytes()
    path = next(page.parent.glob("runs/flix-joint-seed0-*/results.jsonl"))
    whole = path.read_text()
    path.write_text(whole + "{\n")
    try:
        ran = commands.run(tmp_path, "dashboard.py", *overrides, code=1)
    finally:
        path.write_text(whole)
    assert ran.err.startswith(f"error: {path}:")
    assert ran.err.count("\n") == 1
    assert page.read_bytes() == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "no finished run; `python train.py` makes the first"),
        (["seed=1"], "seed=1: the page is of every table and of every seed that is there"),
        (["sede=1"], "sede: no such key or group; did you mean 'seed'?"),
    ],
)
def test_a_mistake_is_one_line(given, said, tmp_path):
    ran = commands.run(tmp_path, "dashboard.py", *given, f"output={tmp_path}/outputs", code=1)
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


# -- in a browser


@pytest.fixture(scope="module")
def seen(page, tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        look(opened, 1280)
        opened.get(page.as_uri())
        opened.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
        yield opened


def test_it_asks_nothing_of_the_network_and_has_no_complaint(seen, page):
    requested(seen)  # those of the browser's own first page
    seen.get(page.as_uri())
    assert {url for url in requested(seen) if not url.startswith("data:")} == {page.as_uri()}
    assert seen.get_log("browser") == []


def test_what_data_says_does_not_run(seen):
    assert seen.execute_script("return [window.hit, document.scripts.length, document.images.length]") == [
        None, 1, 0,
    ]  # fmt: skip


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_screen_scrolls_sideways(seen, width):
    look(seen, width)
    seen.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert seen.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [width, width]


def test_the_heat_map_has_every_language_in_colours_that_say_the_sign(seen):
    look(seen, 1280)
    cells = seen.execute_script(
        "return [...document.querySelectorAll('.heat')].map(map =>"
        " [...map.querySelectorAll('tbody td[title]')].map(cell =>"
        " [cell.title, cell.innerText, getComputedStyle(cell).backgroundColor]))"
    )
    assert [len(one) for one in cells] == [11, 11]
    found = {title.partition(":")[0]: (text, orange(colour)) for title, text, colour in cells[0]}
    text, behind = found["Yoruba, NER"]
    assert text == f"{minus('Compute-matched', 'ner', ['yo']):+.1f}" == "-6.0"
    text, ahead = found["Swahili, NER"]
    assert text == f"{minus('Compute-matched', 'ner', ['sw']):+.1f}" == "+6.0"
    assert behind > 0.01 > -0.01 > ahead


def orange(colour):
    """How far a colour that was mixed in oklab is from blue (below 0) to orange."""
    (b,) = re.findall(r"^oklab\(\S+ \S+ (-?[\d.]+)\)$", colour)
    return float(b)


def test_curves_are_drawn(seen):
    boxes = seen.execute_script(
        "const lines = '#learning path[clip-path][style*=\"stroke-width: 1.5\"]';"
        "return [...document.querySelectorAll(lines)].map(line => {"
        " const box = line.getBBox(); return [box.width, line.getTotalLength()] })"
    )
    # Three methods: on the joint mixture four tasks and a loss, on the other one task and a loss.
    assert len(boxes) == 3 * (5 + 2)
    assert all(width > 100 and length >= width for width, length in boxes)


def test_it_is_dark_where_the_reader_wants_it_dark(seen):
    def lightness(scheme):
        look(seen, 1280, scheme)
        colours = seen.execute_script(
            "const body = getComputedStyle(document.body); return [body.backgroundColor, body.color]"
        )
        return [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours]

    page, ink = lightness("light")
    assert page > 700 > 150 > ink
    page, ink = lightness("dark")
    assert page < 150 < 600 < ink


def test_a_keyboard_reaches_all_that_scrolls_or_opens(seen):
    look(seen, 390)
    unreachable = seen.execute_script(
        "return [...document.querySelectorAll('.scroll, pre')].filter(one => one.tabIndex < 0).length"
    )
    assert unreachable == 0


def lines(seen, table=".heat"):
    """The first cells of the lines that a table shows, from top to bottom."""
    return seen.execute_script(
        "return [...document.querySelector(arguments[0]).querySelectorAll('tbody tr')]"
        ".filter(one => one.offsetHeight).map(one => one.cells[0].innerText.trim().split(/\\s+/).at(-1))",
        table,
    )


def sorted_by(seen, head, table=".heat"):
    """Sort with the keyboard; return the lines and what the head says of its order."""
    (button,) = seen.find_elements(
        "xpath", f"(//*[contains(@class, '{table[1:]}')])[1]//thead//button[.='{head}']"
    )
    button.send_keys(Keys.ENTER)
    said = seen.execute_script(
        "return [...document.querySelector(arguments[0]).querySelectorAll('[aria-sort]')]"
        ".map(one => [one.innerText.trim(), one.ariaSort])",
        table,
    )
    return lines(seen, table), said


def test_a_reader_sorts_by_a_column(seen):
    look(seen, 1280)
    by_name = ["ar", "en", "hi", "sw", "ur", "yo"]
    assert lines(seen) == by_name
    # FLix ahead first, then behind; the other languages have no NER, and stay last.
    assert sorted_by(seen, "NER") == (["sw", "yo", "ar", "en", "hi", "ur"], [["NER", "descending"]])
    assert sorted_by(seen, "NER") == (["yo", "sw", "ar", "en", "hi", "ur"], [["NER", "ascending"]])
    assert sorted_by(seen, "NER") == (by_name, [])
    assert sorted_by(seen, "Language") == (by_name, [["Language", "ascending"]])
    assert sorted_by(seen, "Language") == (by_name[::-1], [["Language", "descending"]])
    sorted_by(seen, "Language")


def test_lines_are_sorted_as_numbers_within_their_section(seen):
    table = "#tables .scroll"
    first = lines(seen, table)
    seen.execute_script(
        "for (const one of document.querySelectorAll('#tables .scroll:first-of-type thead button'))"
        " if (one.innerText.startsWith('Avg')) { one.click(); break }"
    )
    titles = ["Methods", "minus", "Controls", "own"]
    now = lines(seen, table)
    assert [one for one in now if one in titles] == titles
    assert now[1:5] == ["FLix", "Param-matched", "Compute-matched", "Languages"]
    # An interval follows its line.
    assert now[5:12] == [
        "minus",
        "Compute-matched",
        "seeds",
        "languages",
        "Param-matched",
        "seeds",
        "languages",
    ]
    assert sorted(now) == sorted(first)


def narrow(seen, text):
    """Write into the filter by language; return the languages that the first map shows."""
    field = seen.find_element("css selector", "#filter input")
    field.clear()
    field.send_keys(text or "x" + Keys.BACKSPACE)
    return lines(seen)


def test_a_reader_filters_by_language(seen):
    look(seen, 1280)
    assert narrow(seen, "yo") == ["yo"]
    assert narrow(seen, "yorub") == ["yo"]
    assert narrow(seen, "hi") == ["hi"]  # a code is no part of a name, as of Swahili
    assert narrow(seen, "swah, AR") == ["ar", "sw"]
    shown = seen.execute_script(
        "return [...document.querySelectorAll('[data-language]')].filter(one => one.offsetHeight)"
        ".map(one => one.dataset.language)"
    )
    assert set(shown) == {"ar Arabic", "sw Swahili"}  # in tables and samples too
    assert narrow(seen, "nowhere") == []
    assert seen.find_element("css selector", "#filter output").text.startswith("0 of ")
    assert narrow(seen, "") == ["ar", "en", "hi", "sw", "ur", "yo"]


def test_the_page_is_whole_without_scripts(seen, page):
    seen.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        seen.get(page.as_uri())
        assert not seen.find_elements("css selector", "thead button")
        assert not seen.find_element("id", "filter").is_displayed()
        shown = seen.find_elements("css selector", ".heat:first-of-type tbody tr")
        assert all(one.is_displayed() for one in shown)
        assert len(shown) == 2 * 6
    finally:
        seen.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        seen.get(page.as_uri())
