import pytest
from omegaconf import OmegaConf

from flix_lightning.common.errors import UserError
from flix_lightning.common.names import check_name, text_keys
from flix_lightning.common.settings import TEXT


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("{sw: 1, 2020: 2, 1.5: 3}", {"sw": 1, "2020": 2, "1.5": 3}),
        ('{"no": 1, "2020": 2, "007": 3}', {"no": 1, "2020": 2, "007": 3}),
        ("{no: 1}", r'place: YAML reads an unquoted no as false; write "no" in quotes'),
        ("{sw: 1, on: 1}", "place: YAML reads an unquoted yes as true"),
        ('{"2020": 1, 2020: 2}', "place names '2020' twice"),
        (r'{"\ud83d": 1}', r"place: '\\ud83d' holds half a surrogate pair"),
        ('{"": 1}', "place: a name is empty"),
    ],
)
def test_keys_as_yaml_reads_them(yaml, expected):
    table = OmegaConf.to_container(OmegaConf.create(yaml))
    if isinstance(expected, dict):
        assert text_keys("place", table) == expected
    else:
        with pytest.raises(UserError, match=expected):
            text_keys("place", table)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2020, "place: 2020 is not a string; write it in quotes"),
        (False, "place: YAML reads an unquoted no as false"),
        (None, "place: a name is missing"),
    ],
)
def test_values_that_are_no_names(value, message):
    with pytest.raises(UserError, match=message):
        check_name("place", value)


def test_a_path_that_is_not_utf_8_is_no_text():
    assert TEXT.accepts("/data/\N{LATIN SMALL LETTER E WITH ACUTE}")
    assert not TEXT.accepts(b"/data/\xe9".decode(errors="surrogateescape"))
