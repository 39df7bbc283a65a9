"""Tables 2, 4, 5 and 6-50 and Figure 2 from made-up runs: the means they should give, beside the paper's."""

from statistics import fmean
from xml.etree import ElementTree
from zlib import crc32

import numpy as np
import pytest
from examples import run
from matplotlib.image import imread

from flix_lightning.common.errors import UserError
from flix_lightning.reports import paper
from flix_lightning.reports.chart import Curves, svg
from flix_lightning.reports.columns import APPENDIX
from flix_lightning.reports.render import save
from flix_lightning.reports.tables import TABLES, appendix, figure2, make, table2, table4, table5

METHODS = ("Compute-matched", "Param-matched", "FLix")
TASKS = {
    "ner": ["am", "sw"],
    "semantic_parsing": ["bn", "fi", "sw"],
    "qa_in_lang": ["bn", "sw"],
    "qa_cross_lang": ["bn", "te"],
}
MULTILINGUAL = {
    f"multilingual_{task}": [(task, code) for code in [*codes, *(["hi", "ur"] if "cross" in task else [])]]
    for task, codes in TASKS.items()
}
MULTITASK = {
    "multitask_sw": [(task, "sw") for task in ("semantic_parsing", "ner", "qa_in_lang")],
    "multitask_bn": [(task, "bn") for task in ("semantic_parsing", "qa_in_lang", "qa_cross_lang")],
}
JOINT = {"joint": [(task, code) for task, codes in TASKS.items() for code in codes]}
ZERO_SHOT = [("qa_cross_lang", "hi", "unseen_combination"), ("qa_cross_lang", "ur", "unseen_language")]


def score(*key):
    """Another made-up score for every method, mixture, seed, task and language."""
    return 20 + crc32(repr(key).encode()) % 600 / 10


def made(method, mixture, datasets, seed=0, **flix):
    scores = {}
    for task, language, *seen in datasets:
        value = score(method, mixture, seed, task, language, *flix.values())
        scores["test", task, language, 300, *seen] = value
        if not seen:
            scores |= {
                ("validation", task, language, 200): 1.0,
                ("validation", task, language, 300): value + 1,
            }
    settings = {"flix": {"name": method, **flix}, "mixture": {"name": mixture}, "seed": seed}
    return run(settings, scores)


def all_of(mixtures, methods=METHODS, seeds=(0,)):
    return [
        made(method, mixture, datasets, seed)
        for method in methods
        for mixture, datasets in mixtures.items()
        for seed in seeds
    ]


def average(method, mixture, datasets, seed=0, more=()):
    return fmean(score(method, mixture, seed, task, language, *more) for task, language in datasets)


def sections(report):
    return {
        section.title: {name: texts for name, *texts in section.lines}
        for section in report.tables[0].sections
    }


def heads(report):
    return [column.head for column in report.tables[0].columns][1:]


# -- Table 2


def test_table2_averages_over_languages_and_over_tasks():
    mixtures = {**MULTILINGUAL, **MULTITASK}
    report = table2.table(all_of(mixtures))
    assert heads(report) == list(paper.table(2).columns)
    found = sections(report)
    for method in METHODS:
        columns = [average(method, mixture, datasets) for mixture, datasets in mixtures.items()]
        assert found["Methods"][method] == [f"{value:.1f}" for value in [*columns, fmean(columns)]]
    assert found[""]["Languages or tasks"] == ["2", "3", "2", "4", "3", "3", "—"]
    sw = MULTITASK["multitask_sw"]
    difference = average("FLix", "multitask_sw", sw) - average("Param-matched", "multitask_sw", sw)
    assert found["FLix minus"]["Param-matched"][4] == f"{difference:+.1f}"
    assert not report.warnings


def test_table2_shows_the_papers_rows_and_its_single_datasets():
    printed = sections(table2.table([]))["The paper's own"]
    assert printed["FLix"] == ["84.3", "45.0", "89.4", "77.6", "70.2", "69.0", "72.6"]
    assert printed["Single-Lang, Single-Task"] == ["78.9", "22.5", "87.5", "77.1", "66.3", "65.2", "—"]


def test_table2_refuses_runs_of_another_table():
    with pytest.raises(UserError, match="mixture 'joint' is none of this table's"):
        table2.table(all_of(JOINT))


def test_table2_names_the_seed_that_lacks_a_task():
    runs = all_of(MULTITASK)
    runs[0] = made("Compute-matched", "multitask_sw", MULTITASK["multitask_sw"][:2])
    report = table2.table(runs)
    assert report.warnings == ("Compute-matched, seed 0, is left out of Swahili: it lacks qa_in_lang",)
    assert sections(report)["Methods"]["Compute-matched"][4] == "—"


# -- Table 4


def test_table4_has_a_row_for_each_rank():
    runs = [
        made("FLix", mixture, datasets, seed, ranks={"task": 4, "language": rank})
        for mixture, datasets in MULTILINGUAL.items()
        for seed in (0, 1)
        for rank in (2, 1, 8)
    ]
    report = table4.table(runs)
    found = sections(report)
    assert heads(report)[:4] == list(paper.table(4).columns)
    order = [f"multilingual_{task}" for task in ("qa_cross_lang", "qa_in_lang", "semantic_parsing", "ner")]
    for rank in (2, 1, 8):
        for place, mixture in enumerate(order):
            more = [{"task": 4, "language": rank}]
            values = [average("FLix", mixture, MULTILINGUAL[mixture], seed, more) for seed in (0, 1)]
            assert found["Methods"][f"rank {rank}"][place].startswith(f"{fmean(values):.1f} ±")
    assert {"rank 1", "rank 8"} < set(found["rank 2 minus"])
    assert found["The paper's own"]["rank 1"] == ["76.5", "89.3", "45.2", "83.1", "—"]
    assert found["The paper's own"]["rank 2"][0] == "77.6†"
    ours, theirs = table4.curves(runs)
    for column, mixture in zip(heads(report), order, strict=False):
        for rank, value in ours.series[column]:
            more = [{"task": 4, "language": rank}]
            values = [average("FLix", mixture, MULTILINGUAL[mixture], seed, more) for seed in (0, 1)]
            assert value == pytest.approx(fmean(values))
        assert [rank for rank, _ in ours.series[column]] == [1, 2, 8]
    assert theirs.series["NER"] == [(1, 83.1), (2, 84.3)]


# -- Table 5


def test_table5_compares_flix_with_a_shared_feature_and_with_lora():
    methods = ("FLix", "FLix-shared", "Compute-matched")
    datasets = {"joint": [*JOINT["joint"], *ZERO_SHOT]}
    report = table5.table(all_of(datasets, methods))
    assert heads(report)[:4] == list(paper.table(5).columns)
    found = sections(report)
    for method in methods:
        columns = [
            average(method, "joint", [(task, code) for code in TASKS[task]])
            for task in ("qa_in_lang", "qa_cross_lang", "semantic_parsing", "ner")
        ]
        assert found["Methods"][method][:4] == [f"{value:.1f}" for value in columns]
    assert {"FLix-shared", "Compute-matched"} <= set(found["FLix minus"])
    assert found["The paper's own"]["+ shared parameters"][:4] == ["88.2", "84.0", "41.9", "80.7"]


# -- Tables 6 to 50


def of_number(number):
    """Runs of one of these tables on all of the paper's rows, and those rows by dataset."""
    column, method = APPENDIX[number]
    names = [row for row in paper.table(number).lines if row != "average"]
    by_task = {"SemParse": "semantic_parsing", "QA-InLang": "qa_in_lang", "NER": "ner"}
    by_task["QA-CrossLang"] = "qa_cross_lang"
    more = () if column.seen == "seen" else (column.seen,)
    if column.task:
        datasets = {name: (column.task, name, *more) for name in names}
    else:
        language = "sw" if "sw" in column.mixture else "bn"
        datasets = {name: (by_task[name], language) for name in names}
    if number in (6, 10, 14, 18, 22, 26):
        mixtures = {f"single_{task}_{language}": [(task, language)] for task, language in datasets.values()}
    else:
        mixtures = {column.mixture: list(datasets.values())}
    return all_of(mixtures, (method,)), datasets


@pytest.mark.parametrize("number", range(6, 51))
def test_tables_of_the_appendix_show_every_dataset_beside_the_papers(number):
    runs, datasets = of_number(number)
    column, _ = APPENDIX[number]
    (table,) = TABLES[f"table{number}"][f"table{number}"](runs).tables
    assert str(number) in table.title
    lines, (last,) = (section.lines for section in table.sections)
    printed = paper.table(number).lines
    values = {
        row.language if column.task else row.task: row.value
        for one in runs
        for row in one.rows
        if row.split == "test"
    }
    assert [line[0] for line in lines] == list(datasets)
    validated = [1] if column.seen == "seen" else []
    for name, *cells in lines:
        task, language, *_ = datasets[name]
        value = values[language if column.task else task]
        theirs = cells[len(validated) + 1 :]
        assert cells[: -len(theirs)] == [f"{value + more:.1f}" for more in (*validated, 0)]
        assert [float(text.rstrip("†‡§¶")) for text in theirs] == list(printed[name].values())
    mean = fmean(values.values())
    assert last[: len(validated) + 2] == ("average", *(f"{mean + more:.1f}" for more in (*validated, 0)))


def test_a_table_of_single_datasets_goes_on_without_those_that_are_missing():
    runs, _ = of_number(10)
    missing = ["compute-matched-single_qa_in_lang_en-seed0-0123456789"]
    report = make("table10", runs[:-2], missing, [])["table10"]
    lines = {line[0]: line[1:] for section in report.tables[0].sections for line in section.lines}
    assert lines["en"] == ("—", "—", "85.3", "87.1")
    there = [row.value for one in runs[:-2] for row in one.rows if row.split == "test"]
    assert lines["average"][1] == f"{fmean(there):.1f}"
    assert "single_qa_in_lang_en" in report.warnings[0]


def test_a_table_of_the_appendix_is_of_one_evaluation_of_one_method():
    (one,), _ = of_number(44)
    (table,) = appendix.table(44, [one]).tables
    assert {line[0] for section in table.sections for line in section.lines} == {"hi", "ta", "average"}
    # Of the same runs, Table 32 shows what was trained on.
    joint = made("FLix", "joint", [*JOINT["joint"], *ZERO_SHOT])
    found = appendix.table(32, [joint]).tables[0].sections[0].lines
    assert {name for name, _, test, *_ in found if test != "—"} == {"bn", "te"}
    with pytest.raises(UserError, match=r"method 'FLix' is none of this table's \(Compute-matched\)"):
        appendix.table(30, [joint])
    twice = [made("FLix", mixture, [("ner", "sw")]) for mixture in ("joint", "multilingual_ner")]
    with pytest.raises(UserError, match=r"FLix-joint.* and FLix-multilingual_ner.*: ner/sw is scored twice"):
        appendix.table(41, twice)


def test_a_table_without_any_run_is_the_papers_alone():
    assert appendix.table(47, []).tables[0].sections[0].lines[0] == ("am", "—", "46.9†", "38.3†")


# -- Figure 2


def figure(seeds=(0,)):
    joint = {"joint": [*JOINT["joint"], *ZERO_SHOT]}
    return figure2.figure(all_of({**joint, **MULTILINGUAL}, seeds=seeds))


def test_figure2_is_what_learning_all_tasks_together_adds_on_the_languages_of_both():
    report = figure(seeds=(0, 1))
    found = sections(report)["Ours"]
    assert heads(report) == ["NER", "Semantic Parsing", "QA InLang", "QA CrossLang", "Avg."]
    for method in METHODS:
        columns = []
        for task, codes in TASKS.items():
            datasets = [(task, code) for code in codes]
            columns.append(
                fmean(
                    average(method, "joint", datasets, seed)
                    - average(method, f"multilingual_{task}", datasets, seed)
                    for seed in (0, 1)
                )
            )
        assert found[method] == [f"{value:+z.1f}" for value in [*columns, fmean(columns)]]
        assert report.panels[0].series[method] == pytest.approx(columns)
    assert "cross-lingual QA: bn, te" in " ".join(report.tables[0].footnotes)


def test_figure2_of_the_paper_is_table_1_minus_table_2_with_cross_lingual_qa_on_six_languages():
    printed = sections(figure())["The paper's own"]
    together, alone = paper.table(1).lines, paper.table(2).lines
    six = {"Compute-matched": 83.7, "Param-matched": 83.2, "FLix": 83.9}
    for method in METHODS:
        expected = [
            together[method][head] - alone[method][head] for head in ("NER", "Semantic Parsing", "QA InLang")
        ]
        expected.append(together[method]["QA CrossLang"] - six[method])
        assert [float(text) for text in printed[method][:4]] == pytest.approx(expected, abs=0.1501)


def test_figure2_without_one_of_a_pair_has_no_bar_there():
    runs = [one for one in all_of({**JOINT, **MULTILINGUAL}) if one.cfg.mixture.name != "joint"]
    report = make("figure2", runs, ["flix-joint-seed0-0123456789"], [])["figure2"]
    assert sections(report)["Ours"]["FLix"] == ["—"] * 5
    assert report.panels[0].series["FLix"] == [None] * 4
    assert "flix-joint-seed0-0123456789" in report.warnings[0]


def test_figure2_is_saved_as_bars_and_as_numbers(tmp_path):
    report = figure()
    save(report, tmp_path, "figure2")
    assert (tmp_path / "figure2.md").read_text() == report.markdown()
    picture = (imread(tmp_path / "figure2.png")[..., :3] * 255).round().astype(int)
    colours, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    bars = (np.ptp(colours, axis=1) > 50) & (counts > 1000)
    assert bars.sum() == len(METHODS)


def test_a_chart_of_a_page_has_its_values_and_no_markup_of_a_name():
    name = "<script>alert('$x$')</script>"
    drawn = ElementTree.fromstring(svg(Curves(name, name, name, {name: [(100, 12.5), (200, 25)]})))
    tags = {element.tag.rpartition("}")[2] for element in drawn.iter()}
    assert tags <= {"svg", "defs", "style", "g", "path", "use", "text", "title", "clipPath", "rect"}
    texts = [element.text for element in drawn.iter() if element.tag.rpartition("}")[2] in ("text", "title")]
    assert {f"{name}: 12.5 at 100", f"{name}: 25 at 200", name} <= set(texts)
    assert "currentColor" in ElementTree.tostring(drawn, "unicode")
