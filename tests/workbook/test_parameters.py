from __future__ import annotations

import pytest

from workbook.catalogue import UNKNOWN, load
from workbook.errors import WorkbookError
from workbook.parameters import parse, resolve


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("8", 1, 8),
        ("-3", 1, -3),
        ("8", 1.0, 8.0),
        ("1e-3", 1.0, 1e-3),
        ("true", False, True),
        ("No", True, False),
        ("0", True, False),
        ("8", "resnet18", "8"),
        ("resnet50", "resnet18", "resnet50"),
        ("[1, 64]", [1, 8], [1, 64]),
        ("1,64", [1, 8], [1, 64]),
        ("8", [1, 8], [8]),
        ("1,2.5", [1.0], [1.0, 2.5]),
        ("resnet18, resnet50", ["resnet18"], ["resnet18", "resnet50"]),
        ("{'a': 1}", {"b": 2}, {"a": 1}),
        ("[1, 'a']", [], [1, "a"]),
        ("7", None, 7),
        ("seven", None, "seven"),
        ("7", UNKNOWN, 7),
    ],
)
def test_value_takes_the_type_of_the_default(text, default, value):
    result = parse(text, default, "01: x")
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "default"),
    [
        ("abc", 1),
        ("8.0", 1),
        ("", 1),
        ("True", 1),
        ("fast", 1.0),
        ("nan", 1.0),
        ("inf", 1.0),
        ("2", True),
        ("maybe", True),
        ("[1, 'a']", [1, 8]),
        ("[1, 2", [1]),
        ("[1.5]", [1]),
        ("[1]", {"b": 2}),
        ("__import__('os')", {"b": 2}),
    ],
)
def test_wrong_type_is_refused_and_named(text, default):
    with pytest.raises(WorkbookError, match=rf"01: x must be of type {type(default).__name__}"):
        parse(text, default, "01: x")


@pytest.fixture
def notebooks(tmp_path, notebook):
    notebook(tmp_path, "01_one", parameters='batch = 1\nprofile = "quick"')
    notebook(tmp_path, "02_two", parameters="rounds = 10  # of timing")
    return list(load(tmp_path).values())


def test_parameter_goes_where_it_is_known(notebooks):
    assert resolve(notebooks, {"batch": "8", "rounds": "20"}, "full") == {
        "01_one": {"batch": 8, "profile": "full"},
        "02_two": {"rounds": 20},
    }


def test_unknown_name_is_refused_with_the_near_one(notebooks):
    with pytest.raises(WorkbookError, match="'btach' in 01_one, 02_two: did you mean 'batch'"):
        resolve(notebooks, {"btach": "8"}, "quick")


def test_name_known_to_an_unselected_notebook_only_is_refused(notebooks):
    with pytest.raises(WorkbookError, match="unknown parameter 'rounds' in 01_one"):
        resolve(notebooks[:1], {"rounds": "8"}, "quick")


def test_profile_has_its_own_option(notebooks):
    with pytest.raises(WorkbookError, match="--profile"):
        resolve(notebooks, {"profile": "full"}, "quick")
