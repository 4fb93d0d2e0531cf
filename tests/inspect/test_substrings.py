"""The naive count, and where its hits are."""

from __future__ import annotations

from pathlib import Path

import pytest

from relaxquant.inspect import substrings

TEXT = (Path(__file__).parent / "data" / "loops.ll").read_text()


def test_every_hit_has_a_place():
    found = substrings.count(TEXT)
    for word in substrings.WORDS:
        assert found.total(word) == TEXT.count(word)
        assert set(found.hits[word]) <= set(substrings.PLACES)
    assert found.total() == sum(map(TEXT.count, substrings.WORDS))


def test_places_by_hand():
    hits = substrings.count(TEXT).hits
    assert hits["float32"] == {"other string": 1, "comment": 1}
    assert hits["int16"] == {"identifier": 1}
    assert hits["int32"] == {"string constant": 1}
    assert hits["int8"] == {"comment": 2, "string constant": 2, "identifier": 2, "metadata": 2}


def test_int8_counts_uint8():
    found = substrings.count(TEXT)
    assert found.unsigned == {"float32": 0, "int32": 0, "int16": 0, "int8": 2}


def test_share_of_string_constants():
    found = substrings.count(TEXT)
    assert found.share("string constant") == pytest.approx(3 / 12)
    assert sum(found.share(place) for place in substrings.PLACES) == pytest.approx(1)


def test_types_would_be_seen():
    text = "define i8 @f(float %float) {\n  ret i8 0\n}\n"
    assert substrings.count(text, ("i8", "float")).hits == {
        "i8": {"type": 2},
        "float": {"type": 1, "identifier": 1},
    }


def test_labels_and_escaped_quotes():
    text = 'int8.loop:\n@s = constant [9 x i8] c"a\\22;int8\\22 b"  ; c"int8"\n'
    assert substrings.count(text).hits["int8"] == {
        "identifier": 1,
        "string constant": 1,
        "comment": 1,
    }


def test_rows_and_an_empty_text():
    assert substrings.count("").share("comment") == 0
    row = substrings.count(TEXT).rows()[-1]
    assert (row["word"], row["hits"], row["unsigned"], row["string constant"]) == ("int8", 8, 2, 2)
