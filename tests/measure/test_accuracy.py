"""Accuracy against naive loops, and the ways in which it must not be fooled."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from relaxquant.errors import InputError
from relaxquant.measure import (
    accuracy,
    agreement,
    evaluate,
    paired_difference,
    signal_to_noise,
    tied,
    top_k,
)


def naive_top_k(logits, labels, k):
    """Take the k largest one by one, the first of equals each time."""
    hits = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        left = list(range(len(row)))
        best = []
        for _ in range(k):
            winner = left[0]
            for index in left[1:]:
                if row[index] > row[winner]:
                    winner = index
            left.remove(winner)
            best.append(winner)
        hits.append(label in best)
    return hits


@st.composite
def predictions(draw):
    rows, classes = draw(st.integers(1, 8)), draw(st.integers(1, 7))
    # Few distinct values, so that ties are common.
    values = st.sampled_from([-np.inf, -1.5, 0.0, 0.25, 3.0, np.inf])
    logits = draw(hnp.arrays(np.float32, (rows, classes), elements=values))
    labels = draw(hnp.arrays(np.int64, rows, elements=st.integers(0, classes - 1)))
    return logits, labels, draw(st.integers(1, classes))


@given(predictions())
@settings(deadline=None, max_examples=200)
def test_top_k_equals_a_naive_loop(case):
    logits, labels, k = case
    assert top_k(logits, labels, k).tolist() == naive_top_k(logits, labels, k)


@given(predictions())
@settings(deadline=None, max_examples=50)
def test_top_1_is_argmax_and_top_all_is_certain(case):
    logits, labels, _ = case
    np.testing.assert_array_equal(top_k(logits, labels), logits.argmax(axis=1) == labels)
    assert top_k(logits, labels, logits.shape[1]).all()


@given(predictions())
@settings(deadline=None, max_examples=100)
def test_tied_rows_are_those_where_order_decides(case):
    logits, _, k = case
    classes = logits.shape[1]
    for row, flag in zip(logits, tied(logits, k), strict=True):
        backwards = {classes - 1 - i for i in np.argsort(-row[::-1], kind="stable")[:k]}
        forwards = set(np.argsort(-row, kind="stable")[:k].tolist())
        assert flag == (forwards != backwards)


def test_quantized_logits_rank_without_overflow():
    logits = np.array([[0, 255, 254], [255, 255, 0]], dtype=np.uint8)
    assert top_k(logits, np.array([1, 1])).tolist() == [True, False]
    assert tied(logits).tolist() == [False, True]


def test_accuracy_carries_its_interval():
    logits = np.eye(4)[[0, 1, 2, 3]]
    share = accuracy(logits, np.array([0, 1, 2, 0]))
    assert (share.value, share.successes, share.n) == (0.75, 3, 4)
    assert share.low < 0.75 < share.high


def test_agreement_compares_predictions_not_logits():
    a = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    b = np.array([[0.0, 9.0], [0.0, 0.1], [-5.0, 1.0]])
    share = agreement(a, b)
    assert share.successes == 2
    assert agreement(a, a).value == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: top_k(np.zeros((3, 2)), np.array([0, 1])), "3 rows of logits but 2 labels"),
        (lambda: top_k(np.zeros((1, 2)), np.array([2])), "from 2 to 2 but there are 2 classes"),
        (lambda: top_k(np.zeros((1, 2)), np.array([-1])), "0-based"),
        (lambda: top_k(np.zeros((1, 2)), np.array([0.0])), "must be integers"),
        (lambda: top_k(np.zeros((1, 2)), np.array([0]), 3), r"1\.\.2"),
        (lambda: top_k(np.zeros(2), np.array([0])), r"shape \(N, C\)"),
        (lambda: top_k(np.array([[np.nan, 1]]), np.array([0])), "1 of 1 rows of logits hold NaN"),
        (lambda: top_k(np.zeros((0, 2)), np.array([], int)), "N, C >= 1"),
        (lambda: agreement(np.zeros((1, 2)), np.zeros((1, 3))), "one shape"),
        (lambda: paired_difference(np.ones(2, bool), np.ones(3, bool)), "2 and 3"),
        (lambda: paired_difference(np.ones(2), np.ones(2, bool)), "correct_a must be a boolean"),
        (lambda: signal_to_noise(np.ones(2), np.ones(3)), "shapes differ"),
        (lambda: signal_to_noise(np.ones(1), np.array([np.nan])), "finite"),
    ],
)
def test_bad_input_gets_one_clear_error(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_paired_difference_counts_only_disagreements():
    a = np.array([True] * 80 + [False] * 20)
    b = a.copy()
    b[:3] = False  # a alone is right three times
    b[99] = True  # b alone once
    found = paired_difference(a, b)
    assert (found.points, found.n, found.only_a, found.only_b) == (2.0, 100, 3, 1)
    assert found.low < 0 < found.high
    assert str(found).startswith("+2.00 points (")


def test_paired_difference_agrees_with_a_brute_force_bootstrap():
    rng = np.random.default_rng(0)
    a = rng.random(1000) < 0.8
    b = np.where(rng.random(1000) < 0.06, ~a, a)
    found = paired_difference(a, b)
    picks = rng.integers(0, 1000, (4000, 1000))
    differences = 100 * (a[picks].mean(axis=1) - b[picks].mean(axis=1))
    low, high = np.quantile(differences, [0.025, 0.975])
    assert found.points == pytest.approx(100 * (a.mean() - b.mean()))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.25)


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(1)
    a = rng.random(2000) < 0.75
    b = np.where(rng.random(2000) < 0.01, ~a, a)
    unpaired = rng.permutation(b)
    paired, apart = paired_difference(a, b), paired_difference(a, unpaired)
    assert paired.high - paired.low < 0.3 * (apart.high - apart.low)


def test_signal_to_noise_is_ten_decibels_a_decade():
    reference = np.array([3.0, -4.0], dtype=np.float32)
    assert signal_to_noise(reference, reference * 1.1) == pytest.approx(20.0, abs=1e-4)
    assert signal_to_noise(reference, reference * 1.01) == pytest.approx(40.0, abs=1e-3)
    assert signal_to_noise(reference, reference) == math.inf
    assert signal_to_noise(np.zeros(2), np.ones(2)) == -math.inf
    # int8 differences would wrap round if they were not taken in float64.
    wrapped = signal_to_noise(np.array([-128], np.int8), np.array([127], np.int8))
    assert wrapped == pytest.approx(20 * math.log10(128 / 255))


class StaticBatch:
    """A network with a static batch and one output buffer, as a compiled graph may have."""

    def __init__(self, batch):
        self.buffer = np.zeros((batch, 5), np.float32)
        self.calls = 0

    def __call__(self, x):
        assert x.shape == (len(self.buffer), 3, 2, 2)
        assert x.flags.c_contiguous
        self.calls += 1
        self.buffer[:] = x.mean(axis=(1, 2, 3))[:, None] * np.arange(5)
        return self.buffer


@pytest.mark.parametrize("count", [1, 4, 7, 8])
def test_evaluate_fills_the_last_batch_and_copies_answers(count):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 3, 2, 2)).astype(np.float32)
    labels = rng.integers(0, 5, count)
    network = StaticBatch(4)
    found = evaluate(network, x, labels, batch=4)
    expected = x.mean(axis=(1, 2, 3))[:, None] * np.arange(5)
    np.testing.assert_allclose(found.logits, expected, rtol=1e-6)
    assert network.calls == math.ceil(count / 4)
    assert found.accuracy().n == count
    np.testing.assert_array_equal(found.correct(2), top_k(expected, labels, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((2, 3, 2), np.float32)}, r"\(N, C, H, W\)"),
        ({"x": np.zeros((2, 3, 2, 2))}, "must be float32, got float64"),
        ({"labels": np.zeros(3, int)}, "2 images but 3 labels"),
        ({"labels": None}, r"labels must have shape \(N,\)"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"fn": lambda x: np.zeros(5)}, r"got shape \(5,\)"),
        ({"fn": lambda x: np.zeros((7, 5))}, r"\(1, \.\.\.\), got shape \(7, 5\)"),
    ],
)
def test_evaluate_refuses_what_does_not_fit(change, message):
    good = {
        "fn": lambda x: np.zeros((len(x), 5)),
        "x": np.zeros((2, 3, 2, 2), np.float32),
        "labels": np.zeros(2, int),
    }
    with pytest.raises(InputError, match=message):
        evaluate(**good | change)
