"""Fewer bits than eight: which integers a QDQ module uses, and that lowering keeps them."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.relax import op as R

import relaxquant as rq
from relaxquant.lower import conv_layers
from relaxquant.quantize import QConfig
from relaxquant.quantize.pipeline import quantize
from relaxquant.quantize.scales import MIN_SCALE, Range, activation_codes
from tests.quantize.values import quantized_values


@pytest.mark.parametrize("nbit", range(1, 9))
@pytest.mark.parametrize(("low", "high"), [(0.0, 3.0), (-3.0, 3.0), (-1.0, 3.0), (-3.0, 0.0)])
def test_codes_hold_the_range_and_zero_exactly(nbit, low, high):
    codes = activation_codes(Range(low, high), "uint8", nbit)
    assert (codes.lowest, codes.highest) == (0, 2**nbit - 1)
    assert 0 <= codes.zero_point <= codes.highest
    assert codes.fill_dtype == (nbit == 8)
    bottom, top = codes.bounds
    assert bottom <= 0 <= top
    if nbit > 1:  # one bit has nothing below 0
        assert bottom <= low + float(codes.scale) * 0.51
        assert top >= high - float(codes.scale) * 0.51


def test_codes_of_symmetric_types():
    codes = activation_codes(Range(-1.0, 2.54), "int8", 8)
    assert (codes.zero_point, codes.lowest, codes.highest) == (0, -128, 127)
    assert codes.scale == np.float32(0.02) and codes.fill_dtype
    assert activation_codes(Range(-1.0, 1.0), "int16", 16).scale == np.float32(1 / 32767)
    assert activation_codes(Range(0.0, 0.0), "uint8", 4).scale > MIN_SCALE


@pytest.mark.parametrize(
    ("nbit", "dtype"), [(1, "auto"), (2, "int8"), (4, "auto"), (4, "int8"), (7, "uint8")]
)
def test_activations_use_the_bits_asked_for(net, stock, batches, nbit, dtype):
    def body(layers, x):
        return layers.conv(layers.relu(layers.conv(x, "c1"), "r1"), "c2")

    config = QConfig.best(
        asymmetric=False,
        nbit_input=nbit,
        nbit_ends=None,
        dtype_input=dtype,
        calibrate_mode="min_max",
    )
    qmod = quantize(net(body), config, batches, compile_fn=stock)
    values = quantized_values(qmod, stock, 3 * batches[0])  # far outside of what was calibrated
    for name, found in values.items():
        assert found.dtype == np.uint8 and found.max() <= 2**nbit - 1, name
    zero = 2 ** (nbit - 1) if nbit > 1 else 0
    assert values["r1_q"].min() == (zero if dtype == "int8" else 0)
    assert values["r1_q"].max() == 2**nbit - 1
    if nbit > 1:
        assert values["x_q"].min() <= 1


@pytest.mark.parametrize(("dtype", "expected"), [("auto", "uint8"), ("int8", "int8")])
def test_dtype_input(net, stock, batches, dtype, expected):
    def body(layers, x):
        return layers.conv(layers.relu(layers.conv(x, "c1"), "r1"), "c2")

    config = QConfig.best(dtype_input=dtype, asymmetric=False)
    values = quantized_values(
        quantize(net(body), config, batches, compile_fn=stock), stock, batches[0]
    )
    assert values["x_q"].dtype == np.int8 and values["r1_q"].dtype == expected
    config = QConfig.best(dtype_input="uint8")
    values = quantized_values(
        quantize(net(body), config, batches, compile_fn=stock), stock, batches[0]
    )
    assert {v.dtype for v in values.values()} == {np.dtype(np.uint8)}
    assert values["x_q"].min() < 100 < 150 < values["x_q"].max()


@pytest.mark.parametrize(
    ("nbit_weight", "nbit_input", "ternary"),
    [(7, 7, False), (4, 8, False), (4, 4, False), (2, 4, False), (2, 8, True), (1, 1, False)],
)
def test_integers_are_those_of_the_qdq_graph(net, stock, batches, nbit_weight, nbit_input, ternary):
    # Without biases, which integer kernels round to a step of their sum.
    def body(layers, x):
        y = layers.relu(layers.conv(x, "c1", bias=False), "r1")
        y = layers.emit(R.nn.max_pool2d(y, (2, 2), (2, 2)), "pool")
        z = layers.conv(y, "c2", bias=False)
        return layers.conv(layers.add(z, y, "sum"), "c3", bias=False)

    bits = {"nbit_weight": nbit_weight, "nbit_input": nbit_input, "ternary": ternary}
    config = QConfig.best(bias_correction=False, nbit_ends=None, **bits)
    qmod = quantize(net(body), config, batches, compile_fn=stock)
    layers = conv_layers(qmod)
    assert {layer.spec.data.largest for layer in layers} == {2**nbit_input - 1}
    assert (
        max(np.abs(layer.weights.weight).max() for layer in layers)
        == {
            7: 63,
            4: 7,
            2: 1 if ternary else 2,
            1: 1,
        }[nbit_weight]
    )
    expected = stock(qmod)(batches[0])[0]
    np.testing.assert_allclose(
        rq.compile(qmod, threads=1, cache=False)(batches[0]), expected, atol=2e-5
    )
