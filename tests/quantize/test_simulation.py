"""``do_simulation``: the float graph computes what the integer graph does."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op as R

import relaxquant as rq
from relaxquant.lower import simulate
from relaxquant.quantize import QConfig, QuantizeError
from relaxquant.quantize.graph import read_graph
from relaxquant.quantize.pipeline import quantize
from relaxquant.quantize.summary import summary


def body(layers, x):
    y = layers.relu(layers.conv(x, "stem"), "r0")
    y = layers.emit(R.nn.max_pool2d(y, (2, 2), (2, 2)), "pool")
    z = layers.conv(layers.relu(layers.conv(y, "deep", groups=8), "r1"), "inner")
    return layers.head(layers.relu(layers.add(z, y, "sum"), "r2"))


def operators(module):
    return {node.op for node in read_graph(module).nodes}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"nbit_weight": 4, "nbit_input": 4},
        {"asymmetric": True, "rounding": "UPWARD", "dtype_activation": "int16"},
    ],
    ids=str,
)
def test_stock_tvm_computes_what_integers_do(net, stock, batches, settings):
    config = QConfig.best(**settings)
    qmod = quantize(net(body), config, batches, compile_fn=stock)
    config = QConfig.best(do_simulation=True, **settings)
    simulated = quantize(net(body), config, batches, compile_fn=stock)
    assert not operators(simulated) & {"quantize", "dequantize"}
    assert {"quantize", "dequantize"} <= operators(qmod)
    assert relax.analysis.well_formed(simulated) is not False
    expected = rq.compile(qmod, threads=1, cache=False)(batches[1])
    np.testing.assert_array_equal(stock(simulated)(batches[1])[0], expected)
    exact = stock(net(body))(batches[1])[0]
    assert np.abs(expected - exact).max() > 1e-4  # it is quantization that is simulated


def test_a_quantize_with_a_scale_for_each_channel(net, stock, batches):
    scale = relax.const(np.array([0.1, 0.2, 0.05], np.float32))
    zero = relax.const(np.array([0, 3, -7], np.int8))

    def per_channel(layers, x):
        q = layers.emit(R.quantize(x, scale, zero, axis=1, out_dtype="int8"), "q")
        return layers.emit(R.dequantize(q, scale, zero, axis=1), "dq")

    module = net(per_channel)
    simulated = simulate(module)
    assert not operators(simulated) & {"quantize", "dequantize"}
    for scaled in (batches[0], 20 * batches[0]):
        expected = stock(module)(scaled)[0]
        np.testing.assert_allclose(stock(simulated)(scaled)[0], expected, rtol=1e-6)


def test_simulation_and_parts_exclude_each_other():
    with pytest.raises(QuantizeError, match="partition_conversions is 'enabled': set one of"):
        QConfig(do_simulation=True, partition_conversions="enabled")
    assert not summary(simulate(quantize_nothing()))


def quantize_nothing():
    x = relax.Var("x", relax.TensorType((1, 4), "float32"))
    bb = relax.BlockBuilder()
    with bb.function("main", [x]):
        with bb.dataflow():
            y = bb.emit_output(R.nn.relu(x))
        bb.emit_func_output(y)
    return bb.get()
