"""Sums of int8 and int16 (relay.quantize's ``dtype_activation``): fused, and exact."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.relax import op as R

from relaxquant.kernels.spec import Window
from tests.kernels.reference import convolve
from tests.lower.qdq import compiled, module

RNG = np.random.default_rng(1)
SHAPE = (2, 20, 7, 9)
X = RNG.standard_normal(SHAPE).astype(np.float32)
WEIGHT = RNG.integers(-127, 128, (24, 20, 3, 3)).astype(np.int8)
SCALES = np.linspace(0.5, 1.5, 24) / 127
BIAS = np.linspace(-40, 40, 24)
DATA_SCALE = 2.0**-5  # so that the kernel's float32 products are those of the model
ENDS = {"int8": (-128, 127), "int16": (-(2**15), 2**15 - 1), "int32": (-(2**31), 2**31 - 1)}


def network(dtype: str, *, steps: np.ndarray | None = None, again: bool = False):
    """quantize, conv2d, sum in ``dtype``, bias; the result is float."""
    steps = DATA_SCALE * SCALES.astype(np.float32) if steps is None else steps

    def body(net, x):
        y = net.conv2d(net.pair(x, DATA_SCALE, "int8"), WEIGHT, SCALES, padding=(1, 1))
        narrow = y if dtype == "int32" else net.narrow(y, steps, dtype)
        y = net.bias(narrow, BIAS)
        return net.bb.emit(R.add(y, narrow)) if again else y

    return module(SHAPE, body)


def exact(dtype: str) -> np.ndarray:
    """What the network means, in float64."""
    x = np.clip(np.rint(X.astype(np.float64) / DATA_SCALE), -128, 127).astype(np.int64)
    sums = convolve(x, WEIGHT.astype(np.int64), Window((3, 3), padding=(1, 1, 1, 1)), 1)
    scale = DATA_SCALE * SCALES.astype(np.float32).astype(np.float64)[:, None, None]
    return np.clip(sums, *ENDS[dtype]) * scale + BIAS[:, None, None]


@pytest.mark.parametrize("dtype", ENDS)
def test_saturates_like_the_qdq_graph(dtype):
    mod = network(dtype)
    found = compiled(mod)(X)
    # The bias is a whole number of the sum's steps, which are no larger than this.
    half_a_step = DATA_SCALE * 1.5 / 127 / 2
    np.testing.assert_allclose(found, exact(dtype), rtol=1e-6, atol=1.001 * half_a_step)
    np.testing.assert_allclose(
        compiled(mod, executor="naive")(X), exact(dtype), rtol=1e-4, atol=1e-3
    )
    assert (np.abs(exact(dtype) - exact("int32")).max() > 1) == (dtype != "int32")


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_is_part_of_the_convolution(dtype):
    library = compiled(network(dtype))
    assert [(r.op, r.precision) for r in library.kernels] == [
        ("quantize", "int8"),
        ("conv2d", "int8"),
        ("convert", "fp32"),
    ]


def test_all_schedules_give_the_same():
    expected = compiled(network("int8"), schedule="reference")(X)
    for settings in (
        {"schedule": "nchw_spatial_pack"},
        {"schedule": "nchw_winograd_int"},
        {"schedule": "nhwc_quantized_interleaved"},
        {"target": "generic"},
    ):
        np.testing.assert_array_equal(compiled(network("int8"), **settings)(X), expected)


@pytest.mark.parametrize("case", ["other steps", "read twice"])
def test_what_no_kernel_computes_stays_with_tvm(case):
    """Steps that are not those of the sum, or a second reader behind it."""
    if case == "other steps":
        steps = 1.01 * DATA_SCALE * SCALES
        library = compiled(network("int8", steps=steps))
        left = [r.op for r in library.kernels.where(schedule="tvm default")]
        assert left == ["quantize", "dequantize", "add"]
        naive = compiled(network("int8", steps=steps), executor="naive")(X)
        np.testing.assert_allclose(library(X), naive, rtol=1e-4, atol=1e-2)
    else:
        mod = network("int8", again=True)
        naive = compiled(mod, executor="naive")(X)
        np.testing.assert_allclose(compiled(mod)(X), naive, rtol=1e-4, atol=1e-2)
