"""Recent: results kept by key, as many as the limit allows, on all threads."""

from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from relaxquant.recent import Recent


def test_a_result_is_made_once_and_the_one_used_last_stays():
    kept, made = Recent(2), []

    def get(key):
        return kept.get(key, lambda: made.append(key) or f"result {key}")

    assert [get(key) for key in "abab"] == ["result a", "result b"] * 2
    get("a"), get("c")  # b was used longest ago
    assert (made, len(kept)) == (["a", "b", "c"], 2)
    get("a"), get("b")
    assert made == ["a", "b", "c", "b"]
    kept.clear()
    get("a")
    assert made[-1] == "a" and len(kept) == 1


def test_what_makes_a_result_is_let_go():
    class Make:
        def __call__(self):
            return "result"

    kept, make = Recent(2), Make()
    kept.get("key", make)
    gone = weakref.ref(make)
    del make
    assert gone() is None


def test_a_failure_is_not_kept():
    kept = Recent(2)
    with pytest.raises(ZeroDivisionError):
        kept.get("key", lambda: 1 / 0)
    assert kept.get("key", lambda: "now") == "now"


def test_threads_get_one_result():
    kept = Recent(4)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: (i % 8, kept.get(i % 8, lambda: i % 8)), range(800)))
    assert all(key == result for key, result in results) and len(kept) == 4
