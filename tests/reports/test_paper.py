"""The paper's numbers against each other: averages, and every place that prints one setting twice."""

import hashlib
import json
from statistics import fmean

import pytest

from flix_lightning.reports import paper
from flix_lightning.reports.columns import APPENDIX, METHODS, TABLE1, TABLE2

TASKS = {
    "SemParse": 14,
    "QA-InLang": 10,
    "QA-CrossLang": 6,
    "NER": 18,
}  # and their tables of single languages


def doubtful(number, line, column):
    return bool(paper.table(number).notes(line, column))


def test_every_number_is_as_it_was_checked_by_hand():
    lines = json.dumps([paper.table(number).lines for number in range(1, 51)])
    assert hashlib.sha256(lines.encode()).hexdigest().startswith("b1cf6bb23ec5f77f")


@pytest.mark.parametrize("number", range(1, 51))
def test_every_number_is_a_score_with_one_decimal(number):
    table = paper.table(number)
    cells = [value for line in table.lines.values() for value in line.values()]
    assert len(cells) == len(table.lines) * len(table.columns)
    assert all(0 <= value <= 100 and value == round(value, 1) for value in cells)


@pytest.mark.parametrize("number", range(6, 51))
@pytest.mark.parametrize("split", ["validation", "test"])
def test_each_average_is_that_of_its_lines(number, split):
    lines = dict(paper.table(number).lines)
    average = lines.pop("average")[split]
    # Lines and average are each rounded to one decimal place.
    assert fmean(line[split] for line in lines.values()) == pytest.approx(average, abs=0.1001)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_the_main_tables_averages_are_those_of_their_columns(number, method):
    *columns, average = paper.table(number).lines[method].values()
    assert fmean(columns) == pytest.approx(average, abs=0.1001)


@pytest.mark.parametrize("number", [number for number in APPENDIX if number not in (6, 10, 14, 18, 22, 26)])
def test_a_cell_is_doubtful_where_the_appendix_says_otherwise(number):
    """By the numbers: another average than in Table 1 or 2, or lines that repeat another table's."""
    column, method = APPENDIX[number]
    main = 1 if column in TABLE1 else 2
    lines = dict(paper.table(number).lines)
    average = lines.pop("average")["test"]
    cell = paper.table(main).lines[method][column.head]
    supervised = paper.table(36 + list(METHODS).index(method)).lines
    repeated = "Unseen" in column.head and all(supervised.get(name) == line for name, line in lines.items())
    assert doubtful(main, method, column.head) == (average != cell or repeated)
    assert doubtful(number, "average", "test") == (average != cell or repeated)


def test_single_datasets_that_are_printed_twice_are_doubtful_where_they_differ():
    for number, language in ((22, "sw"), (26, "bn")):
        for task in (name for name in paper.table(number).lines if name != "average"):
            first, second = paper.table(number).lines[task], paper.table(TASKS[task]).lines[language]
            differ = first != second
            assert doubtful(number, task, "test") == doubtful(TASKS[task], language, "test") == differ


def test_tables_3_4_and_5_repeat_tables_1_2_and_13():
    for head, value in paper.table(5).lines["FLix"].items():
        (column,) = [one for one in TABLE1 if one.head.lower() == head.lower()]
        assert value == paper.table(1).lines["FLix"][column.head]
        assert (
            paper.table(5).lines["Compute-matched LoRA"][head]
            == (paper.table(1).lines["Compute-matched"][column.head])
        )
    for head, value in paper.table(4).lines["rank 2"].items():
        assert value == paper.table(2).lines["FLix"][head]
    same = [*paper.table(3).lines["p=0.7"].values()] == [*paper.table(13).lines["average"].values()]
    assert doubtful(3, "p=0.7", "Test") is not same


def test_the_abstracts_gain_rests_on_a_doubtful_number():
    head = TABLE1[5].head
    scores = [paper.table(1).lines[method][head] for method in ("FLix", "Param-matched")]
    assert scores[0] - scores[1] == pytest.approx(14.2)
    assert doubtful(1, "FLix", head)


def test_ranks_of_param_matched_lora_are_what_the_remarks_say():
    """Footnote 3 says around 20 to 90; a language has rank 2, and a task 4, or the other way round."""
    languages = {column.head: len(paper.table(column.appendix[0]).lines) - 1 for column in TABLE2}
    ranks = [4 + 2 * languages[column.head] for column in TABLE2[:4]]
    assert (min(ranks), max(ranks)) == (22, 56)
    assert {4 + 2 * languages[column.head] for column in TABLE2[4:]} == {10}
    assert any("22 to 56" in remark and "10 for" in remark for remark in paper.table(2).remarks)


def test_doubts_name_their_reason_and_cells_that_exist():
    assert "Table 38" in paper.table(1).notes("FLix", "Unseen Comb: Semantic parsing")[0]
    assert not paper.table(48).notes("ur", "test")
    for table in map(paper.table, range(1, 51)):
        for doubt in table.doubtful:
            assert {*doubt.get("rows", [])} <= {*table.lines}
            assert {*doubt.get("columns", [])} <= {*table.columns}
