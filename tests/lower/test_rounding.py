"""The rounding that a QDQ module asks for is that of its kernels."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.relax import op as R

import relaxquant as rq
from relaxquant.lower import conv_layers
from relaxquant.qdq import quantized_source, read_rounding, round_before

X = np.linspace(-8, 8, 1024, dtype=np.float32).reshape(1, 16, 8, 8)  # steps of 1/64


def network(rounding, *, nbit=8, relu=False, spoil=None):
    """[relu] -> rounding -> [clip] -> quantize to steps of 1/4 around 128 -> 1x1 conv2d."""
    bb = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 16, 8, 8), "float32"))
    scale, zero = np.float32(0.25), 0 if relu else 2 ** (nbit - 1)
    weight = relax.const(np.eye(16, dtype=np.int8).reshape(16, 16, 1, 1))
    ones, zeros = relax.const(np.ones(16, np.float32)), relax.const(np.zeros(16, np.int8))
    with bb.function("main", [x]):
        with bb.dataflow():
            y = bb.emit(R.nn.relu(x)) if relu else x
            y = round_before(bb, y, np.float32(spoil or scale), rounding, "x")
            if nbit < 8:
                y = bb.emit(R.clip(y, -zero * 0.25, (2**nbit - 1 - zero) * 0.25))
            parameters = relax.const(scale), relax.const(np.uint8(zero))
            q = bb.emit(R.quantize(y, *parameters, out_dtype="uint8"))
            w = bb.emit(R.dequantize(weight, ones, zeros, axis=0))
            y = bb.emit_output(R.nn.conv2d(bb.emit(R.dequantize(q, *parameters)), w))
        bb.emit_func_output(y)
    return bb.get()


def steps(rounding, x):
    v = x.astype(np.float64) * 4
    return {
        "TOEVEN": np.rint(v),
        "UPWARD": np.floor(v + 0.5),
        "TONEAREST": np.sign(v) * np.floor(np.abs(v) + 0.5),
        "DOWN": np.floor(v),
    }[rounding]


@pytest.mark.parametrize("rounding", ["TOEVEN", "UPWARD", "TONEAREST", "DOWN"])
@pytest.mark.parametrize(("nbit", "relu"), [(8, False), (8, True), (4, False), (4, True)])
def test_integer_kernels_and_stock_tvm_round_as_is_said(rounding, nbit, relu):
    module = network(rounding, nbit=nbit, relu=relu)
    zero = 0 if relu else 2 ** (nbit - 1)
    x = np.maximum(X, 0) if relu else X
    expected = np.clip(steps(rounding, x), -zero, 2**nbit - 1 - zero) * 0.25
    library = rq.compile(module, threads=1, cache=False)
    np.testing.assert_array_equal(library(X), expected)
    np.testing.assert_array_equal(
        rq.compile(module, executor="naive", threads=1, cache=False)(X), expected
    )
    # Nothing is left of the operators that say it.
    assert {record.op for record in library.kernels} <= {"quantize", "clip", "conv2d", "convert"}
    (layer,) = conv_layers(module)
    assert layer.spec.data.rounding == rounding and layer.spec.data.largest == 2**nbit - 1


def calls_of(module):
    bindings = module["main"].body.blocks[0].bindings
    return {binding.var: binding.value for binding in bindings}


def test_operators_that_say_something_else_are_left_alone():
    module = network("UPWARD", spoil=0.3)  # rounds to steps of 0.3, quantizes to steps of 0.25
    library = rq.compile(module, threads=1, cache=False)
    assert "floor" in {record.op for record in library.kernels}
    expected = rq.compile(module, executor="naive", threads=1, cache=False)(X)
    np.testing.assert_allclose(library(X), expected, atol=1e-6)


@pytest.mark.parametrize("rounding", ["TOEVEN", "UPWARD", "TONEAREST", "DOWN"])
@pytest.mark.parametrize("nbit", [4, 8])
def test_the_tensor_that_is_meant(rounding, nbit):
    module = network(rounding, nbit=nbit)
    calls = calls_of(module)
    quantize = next(c for c in calls.values() if c.op == tvm.ir.Op.get("relax.quantize"))
    assert quantized_source(quantize, calls.get).same_as(module["main"].params[0])
    found = read_rounding(quantize.args[0], 0.25, calls.get)
    assert (found.rounding if found else "TOEVEN") == rounding
