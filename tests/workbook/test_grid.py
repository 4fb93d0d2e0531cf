"""What ``-p NAME VALUES`` means in a sweep."""

from __future__ import annotations

import string

import pytest

from workbook import grid
from workbook.catalogue import load
from workbook.errors import WorkbookError

LISTS = 'widths = []\nbatches = []  # sizes\nweights = ""\nrounds = 10\nprofile = "quick"'


@pytest.fixture
def catalogue(tmp_path, notebook):
    notebook(tmp_path, "03_one", "x = 1")
    notebook(tmp_path, "05_lists", "x = 1", parameters=LISTS)
    return load(tmp_path)


def given(catalogue, words, *pairs, profile="quick"):
    return [point.given for point in grid.points(catalogue, words, profile, pairs)]


def test_product_of_values_in_the_order_given(catalogue):
    found = given(catalogue, ["03"], ("batch", "1,8"), ("model", "a, b"))
    assert found == [
        {"batch": "1", "model": "a"}, {"batch": "1", "model": "b"},
        {"batch": "8", "model": "a"}, {"batch": "8", "model": "b"},
    ]  # fmt: skip


def test_lists_are_separated_by_semicolons(catalogue):
    assert given(catalogue, ["05"], ("widths", "w8a8,w4a8;w2a2")) == [
        {"widths": "w8a8,w4a8"}, {"widths": "w2a2"},
    ]  # fmt: skip
    assert given(catalogue, ["05"], ("widths", "w8a8,w4a8")) == [{"widths": "w8a8,w4a8"}]


def test_singular_of_a_list_takes_its_elements_one_by_one(catalogue):
    assert given(catalogue, ["05"], ("batch", "1,8")) == [{"batches": "1"}, {"batches": "8"}]
    assert given(catalogue, ["05"], ("width", "w8a8,w4a8")) == [
        {"widths": "w8a8"}, {"widths": "w4a8"},
    ]  # fmt: skip


def test_value_with_a_comma_is_quoted_and_may_be_empty(catalogue):
    values = grid.split('"a,b.pth",c,', is_list=False)
    assert values == ["a,b.pth", "c", ""]
    assert given(catalogue, ["05"], ("weights", ",mine.pth")) == [
        {"weights": ""}, {"weights": "mine.pth"},
    ]  # fmt: skip


def test_notebooks_take_the_parameters_they_have(catalogue):
    found = grid.points(catalogue, ["3", "5"], "quick", [("model", "a,b"), ("rounds", "10,20")])
    assert [(p.notebook, p.given) for p in found] == [
        ("03_one", {"model": "a"}), ("03_one", {"model": "b"}),
        ("05_lists", {"rounds": "10"}), ("05_lists", {"rounds": "20"}),
    ]  # fmt: skip


def test_the_same_point_is_there_once(catalogue):
    assert len(given(catalogue, ["03", "03_one"], ("batch", "1, 01,1"))) == 1
    twice = given(catalogue, ["03"], ("batch", "1"), ("batch", "8"))
    assert twice == [{"batch": "1"}, {"batch": "8"}]


def test_keys_tell_values_apart_and_are_file_names(catalogue):
    def keys(profile, text):
        found = grid.points(catalogue, ["03"], profile, [("model", text)])
        return [point.key for point in found]

    known = [*keys("quick", "a/b,a b,a_b"), *keys("full", "a/b"), *keys("quick", "x" * 300)]
    assert len(set(known)) == 5
    assert all(len(key) < 80 and set(key) <= set(string.ascii_letters + "0123456789-")
               for key in known)  # fmt: skip


@pytest.mark.parametrize(
    ("words", "pair", "message"),
    [
        ([], ("batch", "1"), "a sweep needs a notebook"),
        (["04"], ("batch", "1"), "unknown notebook '04'"),
        (["03"], ("btach", "1"), "did you mean 'batch'"),
        (["03"], ("batch", "1,x"), "03_one: batch must be of type int"),
        (["03"], ("batch", "1,"), "must be of type int"),
        (["03"], ("profile", "quick,full"), "chosen with --profile"),
        (["05"], ("round", "1"), "unknown parameter 'round'"),
    ],
)
def test_bad_requests_are_refused(catalogue, words, pair, message):
    with pytest.raises(WorkbookError, match=message):
        grid.points(catalogue, words, "quick", [pair])
