"""Counting what the two ways to requantize give differently."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op as R

import relaxquant as rq
from relaxquant.errors import InputError, ModelError
from relaxquant.inspect import requantize_differences
from tests.lower.test_requantize import OUT, WEIGHT, X, convolved, module, network, quantized

ZERO = np.zeros((), np.int8)


def by_hand(mod, inputs) -> tuple[int, int]:
    """Integers that differ, and by how much at most, from the networks' own outputs."""
    libraries = [rq.compile(mod, requantize=name, threads=1) for name in ("float", "tflite")]
    first, second = (np.concatenate([library(x) for x in inputs]) for library in libraries)
    steps = np.rint(np.abs(first - second) / OUT[0]).astype(int)
    return np.count_nonzero(steps), steps.max()


def test_counts_are_those_of_the_outputs():
    inputs = [X, -X, X[:, ::-1].copy()]
    mod = network(WEIGHT)
    first, last = requantize_differences(mod, inputs, threads=1)
    assert (first.values, first.differing) == (3 * X.size, 0), "an input is quantized alike"
    assert (last.differing, last.largest) == by_hand(mod, inputs)
    assert last.values == 3 * X.size and 0 < last.share < 0.05 and last.largest == 1
    assert f"{last.differing} of {last.values} differ" in str(last)


def test_a_layer_of_exact_steps_has_no_difference():
    """A multiplier of a power of two, and sums that it divides."""
    weight = 2 * np.eye(16, dtype=np.int8).reshape(16, 16, 1, 1)
    scale = np.full(16, 1.0, np.float32)

    def body(builder, x):
        x = quantized(builder, x, np.float32(0.25), np.uint8(128))
        w = R.dequantize(relax.const(weight), relax.const(scale), relax.const(ZERO), axis=0)
        return quantized(
            builder,
            builder.bb.emit(R.nn.conv2d(x, builder.bb.emit(w))),
            np.float32(0.5),
            np.uint8(128),
        )

    _, last = requantize_differences(module(X.shape, body), [X], threads=1)
    assert last.differing == last.largest == 0 and "at most" not in str(last)


def test_nothing_to_compare_is_an_error():
    def body(builder, x):
        return convolved(builder, x, WEIGHT, np.ones(16, np.float32), ZERO)

    with pytest.raises(ModelError, match="quantizes no activation"):
        requantize_differences(module(X.shape, body), [X])
    with pytest.raises(InputError, match="no inputs"):
        requantize_differences(network(WEIGHT), [])
