"""Weights with zero points: subtracted where they are read if 8 bits suffice, else by kernels."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op as R

from relaxquant.lower import conv_layers
from relaxquant.lower.read import QuantizedConstant, Unsupported
from tests.lower.qdq import compiled, module

RNG = np.random.default_rng(0)
X = RNG.uniform(-4, 4, (1, 16, 9, 7)).astype(np.float32)


def network(weight: np.ndarray, zero_point, scale, out_scale=None, **attrs):
    """conv2d by dequantized weights with zero points, of an input in steps of 1/32."""

    def body(builder, x):
        data = relax.const(np.float32(1 / 32)), relax.const(np.uint8(131))
        q = builder.bb.emit(R.quantize(x, *data, out_dtype="uint8"))
        x = builder.bb.emit(R.dequantize(q, *data))
        parameters = relax.const(scale), relax.const(zero_point)
        w = builder.bb.emit(R.dequantize(relax.const(weight), *parameters, axis=0))
        return builder.bb.emit(R.nn.conv2d(x, w, **attrs))

    return module(X.shape, body)


def agrees_with_stock_tvm(mod) -> bool:
    """Whether the integer kernels give what TVM's own float pipeline does."""
    library = compiled(mod, cache=False)
    assert library.kernels.where(op="conv2d")[0].precision == "int8"
    expected = compiled(mod, executor="naive", cache=False)(X)
    return np.allclose(library(X), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


PER_TENSOR = np.float32(0.02), np.uint8(120)
PER_CHANNEL = RNG.uniform(0.01, 0.05, 8).astype(np.float32), np.arange(60, 220, 20, dtype=np.uint8)


@pytest.mark.parametrize(("scale", "zero_point"), [PER_TENSOR, PER_CHANNEL])
def test_uint8_weights(scale, zero_point):
    weight = RNG.integers(0, 256, (8, 16, 3, 3)).astype(np.uint8)
    mod = network(weight, zero_point, scale, padding=(1, 1), strides=(2, 1))
    (layer,) = conv_layers(mod)
    assert layer.spec.weight_zero_points == ("each" if zero_point.size > 1 else "common")
    np.testing.assert_array_equal(layer.weights.zero_point, zero_point.astype(int) - 128)
    assert agrees_with_stock_tvm(mod)


def test_depthwise():
    weight = RNG.integers(0, 256, (16, 1, 3, 3)).astype(np.uint8)
    mod = network(weight, np.uint8(90), np.float32(0.02), padding=(1, 1), groups=16)
    assert agrees_with_stock_tvm(mod)


def test_int8_weights():
    weight = RNG.integers(-128, 128, (8, 16, 1, 1)).astype(np.int8)
    assert agrees_with_stock_tvm(network(weight, np.int8(-3), np.float32(0.02)))


@pytest.mark.parametrize("zero_point", [200, 128, 0])
def test_differences_of_eight_bits_need_no_zero_point(zero_point):
    low, high = max(0, zero_point - 128), min(256, zero_point + 128)
    weight = RNG.integers(low, high, (8, 16, 1, 1)).astype(np.uint8)
    mod = network(weight, np.uint8(zero_point), np.float32(0.02))
    (layer,) = conv_layers(mod)
    assert not layer.spec.weight_zero_points and layer.weights.zero_point is None
    np.testing.assert_array_equal(layer.weights.weight, weight.astype(int) - zero_point)
    assert agrees_with_stock_tvm(mod)


def test_one_weight_of_nine_bits_is_enough_for_a_zero_point():
    weight = np.full((1, 4), 200, np.uint8)
    weight[0, 0] = 71
    assert not QuantizedConstant(weight + 1, np.ones(1), 0, np.uint8(200)).zero_point.any()
    assert QuantizedConstant(weight, np.ones(1), 0, np.uint8(200)).zero_point.tolist() == [72]


def test_zero_points_lie_along_the_output_channels():
    constant = QuantizedConstant(
        np.zeros((3, 4), np.uint8), np.ones(1), 1, np.array([200, 201, 202, 203], np.uint8)
    )
    assert constant.weight(axis=1).zero_point.tolist() == [72, 73, 74, 75]
    assert constant.dequantized[0].tolist() == [-200, -201, -202, -203]
    with pytest.raises(Unsupported, match="along axis 1 instead of 0"):
        constant.weight(axis=0)
