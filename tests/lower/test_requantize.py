"""``rq.compile(requantize=...)``: what is asked for reaches every layer, and is not forgotten."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.relax import op as R

import relaxquant as rq
from relaxquant.errors import InputError
from relaxquant.executors import content
from relaxquant.lower.fixed_point import quantize_multiplier, round_half_away
from tests.kernels.reference import multiply_by_quantized_multiplier
from tests.lower.qdq import compiled, module

RNG = np.random.default_rng(0)
SHAPE = (1, 16, 12, 12)
IN, OUT = (np.float32(1 / 32), np.uint8(131)), (np.float32(0.0473), np.uint8(119))
SCALE = RNG.uniform(0.001, 0.004, 16).astype(np.float32)


def quantized(builder, x, scale, zero_point):
    parameters = relax.const(scale), relax.const(zero_point)
    q = builder.bb.emit(R.quantize(x, *parameters, out_dtype="uint8"))
    return builder.bb.emit(R.dequantize(q, *parameters))


def convolved(builder, x, weight, scale, zero_point):
    w = R.dequantize(relax.const(weight), relax.const(scale), relax.const(zero_point), axis=0)
    x = builder.bb.emit(R.nn.conv2d(x, builder.bb.emit(w)))
    bias = relax.const(RNG.uniform(-1, 1, (1, 16, 1, 1)).astype(np.float32))
    return builder.bb.emit(R.add(x, bias))


def network(weight, scale=SCALE, zero_point=None, relu6=False, residual=False) -> tvm.IRModule:
    """quantize -> 1x1 conv2d -> [relu6] -> [add of the input] -> quantize."""
    if zero_point is None:
        zero_point = np.zeros((), weight.dtype)

    def body(builder, x):
        x = quantized(builder, x, *IN)
        y = convolved(builder, x, weight, scale, zero_point)
        if relu6:
            y = builder.bb.emit(R.clip(y, 0, 6))
        if residual:
            y = builder.bb.emit(R.add(y, x))
        return quantized(builder, y, *OUT)

    return module(SHAPE, body)


def expected(mod, weight, unsigned: bool, low: int = 0, high: int = 255) -> np.ndarray:
    """Stored outputs by TFLite's formulas, from the weights less their zero points."""
    (layer,) = rq.lower.conv_layers(mod)
    x = np.clip(np.rint(X / IN[0]) + int(IN[1]), 0, 255).astype(np.int64) - int(IN[1])
    acc = np.einsum("nihw,oi->nohw", x, weight[:, :, 0, 0].astype(np.int64))
    acc += layer.weights.bias[:, None, None]
    product = IN[0] * SCALE if unsigned else IN[0].astype(np.float64) * SCALE
    factors = quantize_multiplier(product.astype(np.float64) / OUT[0])
    steps = multiply_by_quantized_multiplier(acc, *(f[:, None, None] for f in factors))
    return np.clip(steps + int(OUT[1]), low, high)


X = RNG.uniform(-4, 4, SHAPE).astype(np.float32)
WEIGHT = RNG.integers(-127, 128, (16, 16, 1, 1)).astype(np.int8)


def stored(library) -> np.ndarray:
    return np.rint(library(X) / OUT[0]).astype(int) + int(OUT[1])


@pytest.mark.parametrize("relu6", [False, True])
def test_int8_weights(relu6):
    mod = network(WEIGHT, relu6=relu6)
    library = compiled(mod, requantize="tflite", cache=False)
    low, high = (119, 119 + int(round_half_away(6 / OUT[0]))) if relu6 else (0, 255)
    np.testing.assert_array_equal(stored(library), expected(mod, WEIGHT, False, low, high))


def test_uint8_weights_have_a_product_of_float32():
    weight = RNG.integers(0, 256, WEIGHT.shape).astype(np.uint8)
    mod = network(weight, zero_point=np.uint8(140))
    library = compiled(mod, requantize="tflite", cache=False)
    steps = weight.astype(int) - 140
    np.testing.assert_array_equal(stored(library), expected(mod, steps, True))


def test_records_and_metadata_say_it(tmp_path):
    mod = network(WEIGHT)
    for name in ("float", "tflite"):
        library = compiled(mod, requantize=name)
        (record,) = library.kernels.where(op="conv2d")
        assert record.requantize == library.metadata.requantize == name
        loaded = rq.load(library.export(tmp_path / f"{name}.so"))
        assert loaded.metadata.requantize == name and loaded.kernels[1].requantize == name
        np.testing.assert_array_equal(loaded(X), library(X))


def test_the_cache_keeps_them_apart():
    mod = network(WEIGHT)
    keys = {
        content.digest(mod, rq.target.resolve("native"), {"requantize": name})
        for name in ("float", "tflite")
    }
    assert len(keys) == 2
    first, second = (compiled(mod, requantize=name) for name in ("float", "tflite"))
    assert first.metadata.requantize != second.metadata.requantize


def test_sums_that_a_residual_is_added_to_are_no_case_for_tflite():
    """It would have quantized them first."""
    mod = network(WEIGHT, residual=True)
    first, second = (compiled(mod, requantize=name, cache=False) for name in ("float", "tflite"))
    assert second.kernels.where(op="conv2d")[0].requantize == "float"
    np.testing.assert_array_equal(first(X), second(X))


def test_what_stays_in_float_is_not_touched():
    """A layer whose output is not quantized has nothing to requantize."""

    def body(builder, x):
        return convolved(builder, quantized(builder, x, *IN), WEIGHT, SCALE, np.zeros((), np.int8))

    mod = module(SHAPE, body)
    first, second = (compiled(mod, requantize=name, cache=False) for name in ("float", "tflite"))
    np.testing.assert_array_equal(first(X), second(X))
    assert second.kernels.where(op="conv2d")[0].requantize == ""


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match=r"'float', 'tflite', not 'tflit'.*did you mean 'tflite'"):
        compiled(network(WEIGHT), requantize="tflit")
    with pytest.raises(InputError, match="executor 'naive' computes in float"):
        compiled(network(WEIGHT), requantize="tflite", executor="naive")
