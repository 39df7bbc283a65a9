import json
from pathlib import Path
from statistics import fmean

import pytest

from flix_lightning.reports import paper

SHARED = Path(__file__).parents[3] / "shared" / "data" / "paper-tables.json"
METHODS = ("Compute-matched", "Param-matched", "FLix")


@pytest.mark.skipif(not SHARED.exists(), reason="the hand-checked copy of the paper's tables is not here")
@pytest.mark.parametrize("number", range(1, 51))
def test_every_number_is_the_papers(number):
    expected = json.loads(SHARED.read_text())[str(number)]
    table = paper.table(number)
    if number <= 5:
        rows = {
            name: dict(zip(expected["columns"], row, strict=True)) for name, row in expected["rows"].items()
        }
    else:
        assert table.caption == expected["caption"]
        codes = {"pt-br": "pt_br", "de-localized": "de_localized", "Average": "average"}
        rows = {codes.get(name, name): row for name, row in expected["rows"].items()}
    assert table.rows == rows
    assert list(table.rows) == list(rows)


@pytest.mark.parametrize("number", range(6, 51))
@pytest.mark.parametrize("split", ["validation", "test"])
def test_each_average_is_that_of_its_rows(number, split):
    rows = dict(paper.table(number).rows)
    average = rows.pop("average")[split]
    # Rows and average are each rounded to one decimal place.
    assert fmean(row[split] for row in rows.values()) == pytest.approx(average, abs=0.1001)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_the_main_tables_averages_are_those_of_their_columns(number, method):
    *columns, average = paper.table(number).rows[method].values()
    assert fmean(columns) == pytest.approx(average, abs=0.1001)


APPENDIX = dict(zip(list(paper.table(1).columns)[:-1], (39, 36, 33, 30, 42, 45, 48), strict=True))


@pytest.mark.parametrize("column", APPENDIX)
@pytest.mark.parametrize("method", METHODS)
def test_a_cell_of_table_1_is_doubtful_where_the_appendix_says_otherwise(method, column):
    """By the numbers: another average than in Table 1, or languages that repeat the supervised table's."""
    behind = dict(paper.table(APPENDIX[column] + METHODS.index(method)).rows)
    average = behind.pop("average")["test"]
    cell = paper.table(1).rows[method][column]
    supervised = paper.table(36 + METHODS.index(method)).rows
    repeated = "Unseen" in column and all(supervised.get(name) == row for name, row in behind.items())
    assert (paper.table(1).doubt(method, column) is not None) == (average != cell or repeated)


def test_doubts_name_their_reason():
    assert "Table 38" in paper.table(1).doubt("FLix", "Unseen Comb: Semantic parsing")
    assert "Table 38" in paper.table(47).doubt("yo", "validation")
    assert paper.table(48).doubt("average", "test")
    assert paper.table(48).doubt("ur", "test") is None
    assert paper.table(38).doubt("yo", "test") is None


def test_every_doubt_names_cells_that_exist():
    for number in range(1, 51):
        table = paper.table(number)
        for doubt in table.doubts:
            assert set(doubt.rows) <= set(table.rows)
            assert set(doubt.columns) <= set(table.columns)
