"""Networks of int16 activations: run in integers where sums fit int32, in float where not."""

from __future__ import annotations

import numpy as np
import pytest

from relaxquant.kernels.int32_sums import INT32_MAX, largest_activation, largest_sums
from tests.kernels.reference import convolve
from tests.lower.qdq import compiled, module

RNG = np.random.default_rng(0)
SHAPE = (2, 20, 7, 9)
X = RNG.standard_normal(SHAPE).astype(np.float32)


def weights(dtype: str, largest: int, out: int = 24) -> np.ndarray:
    """Random (out, 20, 3, 3) integers."""
    return RNG.integers(-largest, largest + 1, (out, 20, 3, 3)).astype(dtype)


def one_layer(weight: np.ndarray, largest: int | None, dtype: str = "int16", out: str = "int16"):
    """clip, quantize, conv2d, bias, and quantize again for a result."""
    scales = np.linspace(0.5, 1.5, len(weight)) / np.abs(weight).max()

    def body(net, x):
        x = net.pair(x, 4 / (largest or 32767), dtype, largest)
        x = net.bias(net.conv2d(x, weight, scales, padding=(1, 1)), np.linspace(-1, 1, len(weight)))
        return net.pair(x, 2**-9, out)

    return module(SHAPE, body)


def kernels(library, op: str = "conv2d") -> list[tuple[str, str]]:
    return [(r.precision, r.reason) for r in library.kernels.where(op=op)]


@pytest.mark.parametrize("out", ["int16", "int8"])
@pytest.mark.parametrize("weight_dtype, weight_max", [("int8", 127), ("int16", 700)])
def test_agrees_with_exact_arithmetic(weight_dtype, weight_max, out):
    """The float network rounds its sums, the integer one does not: it is the exact one."""
    weight, largest = weights(weight_dtype, weight_max), 9999
    library = compiled(one_layer(weight, largest, out=out))
    assert kernels(library) == [("int16", "")]
    x = np.rint(np.clip(X, -4, 4).astype(np.float64) / (4 / largest)).astype(np.int64)
    window = library_window()
    scale = (4 / largest) * np.linspace(0.5, 1.5, 24) / np.abs(weight).max()
    sums = convolve(x, weight.astype(np.int64), window, 1) * scale[:, None, None]
    exact = sums + np.linspace(-1, 1, 24)[:, None, None]
    ends = np.iinfo(out)
    expected = np.clip(np.rint(exact * 2**9), ends.min, ends.max)
    found = library(X) * 2**9
    # A float32 multiplier can tip what lies between two steps.
    assert np.abs(found - expected).max() <= 1
    assert (found == expected).mean() > 0.99


def library_window():
    from relaxquant.kernels.spec import Window

    return Window((3, 3), padding=(1, 1, 1, 1))


def test_stock_tvm_can_run_it():
    mod = one_layer(weights("int16", 700), 9999)
    stock, ours = compiled(mod, executor="naive")(X), compiled(mod)(X)
    assert np.abs(ours - stock).max() <= 2**-9
    assert ours.std() > 100 * 2**-9


@pytest.mark.parametrize("weight_dtype", ["int8", "int16"])
def test_the_proof_decides_to_the_unit(weight_dtype):
    """One step more than the weights allow, and the layer stays in float, with the reason."""
    weight = weights(weight_dtype, np.iinfo(weight_dtype).max)
    allowed = largest_activation(weight)  # without the bias, which is small
    allowed = min(allowed, 32767)
    while largest_sums(weight, allowed, bias_steps(weight, allowed)).max() > INT32_MAX:
        allowed -= 1
    inside = compiled(one_layer(weight, allowed))
    assert kernels(inside) == [("int16", "")]
    if allowed == 32767:
        return
    outside = compiled(one_layer(weight, allowed + 1))
    ((precision, reason),) = kernels(outside)
    assert precision == "fp32" and "more than int32 has" in reason
    np.testing.assert_allclose(outside(X), inside(X), rtol=0, atol=0.2)


def bias_steps(weight: np.ndarray, largest: int) -> np.ndarray:
    """The bias of `one_layer` in units of its accumulator."""
    scale = 4 / largest * np.linspace(0.5, 1.5, len(weight)) / np.abs(weight).max()
    return np.rint(np.linspace(-1, 1, len(weight)) / scale).astype(np.int64)


def test_without_a_clip_the_whole_of_int16_counts():
    """Nothing says how large activations are: the lowest int16 is one more than the highest."""
    weight = np.full((16, 20, 1, 1), 3276, np.int16)  # * 20 * 32768 is just below 2**31
    fits, too_large = weight.copy(), weight.copy()
    too_large[:, 0] += 16

    def network(weight):
        def body(net, x):
            return net.conv2d(net.pair(x, 2**-13, "int16"), weight, np.full(16, 2**-10))

        return module(SHAPE, body)

    assert kernels(compiled(network(fits))) == [("int16", "")]
    assert kernels(compiled(network(too_large)))[0][0] == "fp32"


def test_int16_weights_of_bytes_are_float_and_say_so():
    (kept,) = kernels(compiled(one_layer(weights("int16", 700), 127, dtype="int8")))
    assert kept == ("fp32", "no kernel multiplies uint8 by int16")


def test_weights_that_fit_bytes_are_stored_as_bytes():
    wide, narrow = (compiled(one_layer(weights("int16", size), 999)) for size in (700, 100))
    assert kernels(wide) == kernels(narrow)
    assert "widened" in narrow.kernels.where(op="conv2d")[0].instructions
    assert "widened" not in wide.kernels.where(op="conv2d")[0].instructions


def test_every_schedule_and_target_gives_the_same_integers():
    mod = one_layer(weights("int16", 700), 9999)
    expected = compiled(mod, schedule="reference")(X)
    for settings in (
        {"schedule": "nchw_spatial_pack"},
        {"schedule": "nhwc_quantized_interleaved"},
        {"target": "generic"},
        {"executor": "vm"},
    ):
        np.testing.assert_array_equal(compiled(mod, **settings)(X), expected)


def test_sums_of_an_average_may_not_leave_int32():
    from tvm.relax import op as R

    def body(net, x):
        x = net.bb.emit(R.mean(net.pair(x, 0.001, "int16"), [2, 3], keepdims=True))
        return net.pair(x, 0.001, "int16")

    small, large = (compiled(module((1, 2, 256, size), body)) for size in (8, 256))
    assert kernels(small, "avg_pool2d") == [("int16", "")]
    assert "may need more than int32" in kernels(large, "mean")[0][1]
    x = np.full((1, 2, 256, 256), 32.0, np.float32)
    np.testing.assert_allclose(large(x), 32, rtol=1e-3)
