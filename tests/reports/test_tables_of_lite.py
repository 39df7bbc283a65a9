from dataclasses import replace

import pytest
from examples import run
from matplotlib.image import imread

from flix_lightning.reports.render import save
from flix_lightning.reports.tables import make
from flix_lightning.runs.predictions import Prediction

METHODS = ("Compute-matched", "Param-matched", "FLix")
DATASETS = {
    ("ner", "sw", "seen"): 1,
    ("semantic_parsing", "ee", "seen"): 2,
    ("semantic_parsing", "am", "unseen_combination"): 3,
}
COLUMNS = ["NER", "Semantic Parsing", "Zero-shot: Unseen Comb: Semantic parsing"]
PARSE = "[IN:ALARM [SL:TIME saa ] ]"
#: Method -> what it writes for two sentences and for two parses.
WROTE = {
    "Compute-matched": (["", "LOC: Ann"], [PARSE, "[IN:ALARM"]),
    "Param-matched": (["PER: Ann", "PER: Ann"], [PARSE, PARSE]),
    "FLix": (["PER: Ann", "PER: Ann $$ LOC: Rome"], ["[IN:CALL ]", PARSE.replace("saa", "siku")]),
}


def made_up_runs():
    found = []
    for method in METHODS:
        settings = {"flix": {"name": method}, "mixture": {"name": "lite_short"}, "seed": 0}
        scores = {
            ("test", task, language, 300, seen): 10 * METHODS.index(method) + place
            for (task, language, seen), place in DATASETS.items()
        }
        one = run(settings, scores)
        one.predictions = lambda row, wrote=WROTE[method]: [
            Prediction(str(number), text, {"ner": "PER: Ann"}.get(row.task, PARSE))
            for number, text in enumerate(wrote[row.task != "ner"])
        ]
        found.append(one)
    return found


def sections(table):
    return {section.title: {name: cells for name, *cells in section.lines} for section in table.sections}


@pytest.fixture(scope="module")
def reports():
    return make("lite_cpu", made_up_runs(), [], [])


def test_methods_stand_by_task(reports):
    table, sizes = reports["lite_cpu"].tables
    found = sections(table)
    assert found["Methods"]["FLix"] == ["21.0", "22.0", "23.0", "22.0"]
    assert found["FLix minus"]["Param-matched"] == ["+10.0"] * 4
    assert [line[:2] for section in sizes.sections for line in section.lines] == [
        (one, "lite_short") for one in METHODS
    ]
    assert list(found["Controls"]) == ["Frozen base", "Task rows only", "Language rows only"]


def test_the_papers_average_and_remarks_are_left_out_as_its_columns_are_others(reports):
    table, _ = reports["lite_cpu"].tables
    assert sections(table)["The paper's own"]["Param-matched"] == ["81.6", "47.1", "28.4", "—"]
    assert not any("On the paper" in note for note in table.footnotes)


def test_every_language_stands_in_a_table_of_its_column(reports):
    tables = reports["lite_cpu-languages"].tables
    assert [table.title for table in tables] == COLUMNS
    assert [sections(table)[""]["average"][-1] for table in tables] == ["21.0", "22.0", "23.0"]


def test_every_language_has_a_bar_of_each_method(reports, tmp_path):
    report = reports["lite_cpu-languages"]
    assert [(panel.title, panel.groups) for panel in report.panels] == [
        (column, [language]) for column, (_, language, _) in zip(COLUMNS, DATASETS, strict=True)
    ]
    assert report.panels[1].series == {"Compute-matched": [2.0], "Param-matched": [12.0], "FLix": [22.0]}
    many = replace(report.panels[0], groups=[*"abcde"], series={"FLix": [1.0, None, 3.0, 0.0, 5.0]})
    for name, chart in (("few", report), ("many", replace(report, panels=(many, many)))):
        save(chart, tmp_path, name)
    few, stacked = (imread(tmp_path / f"{name}.png").shape for name in ("few", "many"))
    assert stacked[0] > few[0]  # higher: one panel below another
    assert stacked[1] < few[1]


def test_mistakes_are_counted_by_kind_and_method(reports):
    (table,) = reports["lite_cpu-mistakes"].tables
    assert [column.head for column in table.columns] == ["", *METHODS]
    found = sections(table)
    assert list(found) == COLUMNS
    assert found["NER"] == {
        "right": ["0.0", "100.0", "100.0"],
        "invented": ["0.0", "0.0", "50.0"],
        "missed": ["50.0", "0.0", "0.0"],
        "other label": ["50.0", "0.0", "0.0"],
    }
    assert found["Semantic Parsing"] == {
        "right": ["50.0", "100.0", "0.0"],
        "malformed": ["50.0", "0.0", "0.0"],
        "other intents": ["0.0", "0.0", "50.0"],
        "other words": ["0.0", "0.0", "50.0"],
    }
