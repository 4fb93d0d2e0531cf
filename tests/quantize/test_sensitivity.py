"""`rq.sensitivity`: one layer at a time, against the same written in NumPy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import relaxquant as rq
from relaxquant.quantize import QConfig, QuantizeError
from relaxquant.quantize.pipeline import quantize
from relaxquant.quantize.sensitivity import divergence, top1_changed
from tests.quantize.pointwise import (
    LAYERS,
    conv,
    exact_values,
    float_weights,
    operands,
    pointwise,
    ratio,
    relu,
    rounded,
)


def test_costs_are_those_of_the_arithmetic_written_out(net, stock, batches):
    mod = net(pointwise)
    plain = QConfig.best(bias_correction=False)
    rows = rq.sensitivity(mod, batches, plain, bits=(6, 3), compile_fn=stock)
    assert len(rows) == 6
    exact = exact_values(float_weights(mod), np.concatenate(batches))
    for row in rows:
        config = dataclasses.replace(plain, nbit_weight=row.bits)
        data, weights = operands(quantize(mod, config, batches, compile_fn=stock))
        values = {"x": exact["x"]}
        for name, layer, before in LAYERS:
            alone = layer == row.layer
            read = rounded(values[before], *data[before]) if alone else values[before]
            y = conv(read, weights[layer] if alone else float_weights(mod)[layer])
            values[name] = y if name == "out" else relu(y)
        expected, answers = (v["out"].reshape(6, -1) for v in (exact, values))
        assert row.sqnr == pytest.approx(ratio(expected, answers), abs=0.05), row.layer
        assert row.kl == pytest.approx(divergence(expected, answers), rel=0.02)
        assert row.top1 == top1_changed(expected, answers)
        assert (row.op, row.input_bits) == ("nn.conv2d", 8)
    parameters = {row.layer: (row.parameters, row.macs) for row in rows}
    assert parameters == {"c0": (24, 24 * 64), "c1": (64, 64 * 64), "out": (32, 32 * 64)}


def test_measures_of_answers():
    exact = np.log([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    other = np.log([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]]) + 7.0
    assert divergence(exact, exact + 3.0) == 0
    assert divergence(exact, other) == pytest.approx((0.5 - 0.25) * np.log(2) / 2)
    assert top1_changed(exact, other) == 50


def outliers(layers, x):
    """c1's weights have one large value in each output channel: few bits leave it little else."""
    y = layers.relu(layers.conv(x, "c0", bias=False), "r0")
    layers.const("w", 8, 8, 1, 1, scale=0.05)
    layers.constants["w"][:, 0] = 2.0
    y = layers.relu(layers.emit(spiky(y, layers.constants["w"]), "c1"), "r1")
    return layers.head(y)


def spiky(y, weight):
    from tvm import relax
    from tvm.relax import op as R

    return R.nn.conv2d(y, relax.const(weight))


@pytest.mark.parametrize("metric", ["kl", "sqnr"])
def test_the_layer_made_sensitive_ranks_first(net, batches, metric):
    config = QConfig.best(bias_correction=False)  # which would take most of the error back
    rows = rq.sensitivity(net(outliers), batches, config, bits=4, metric=metric)
    assert rows[0].layer == "c1"
    values = [getattr(row, metric) for row in rows]
    assert values == sorted(values, reverse=metric == "kl")
    assert "w4a8" in str(rows) and str(rows).splitlines()[1].startswith("c1")


def test_rows_are_those_of_the_layers_that_the_config_quantizes(net, stock, batches):
    config = QConfig.best(skip_dense_layer=True, nbit_weight=5, nbit_input=6, asymmetric=False)
    mod = net(outliers, shape=("n", 3, 8, 8))
    rows = rq.sensitivity(mod, [np.concatenate(batches)], config, compile_fn=stock)
    assert {row.layer for row in rows} == {"c0", "c1"}
    assert {(row.bits, row.input_bits) for row in rows} == {(5, 6)}
    fixed = rq.sensitivity(net(outliers), batches, config, compile_fn=stock)
    for row, other in zip(rows, fixed, strict=True):
        assert row.layer == other.layer and row.sqnr == pytest.approx(other.sqnr, abs=0.05)


def test_refusals(net, batches):
    mod = net(pointwise)
    with pytest.raises(QuantizeError, match="metric is 'mse'; allowed: 'kl', 'sqnr', 'top1'"):
        rq.sensitivity(mod, batches, metric="mse")
    with pytest.raises(QuantizeError, match="bits is 9; allowed: one or several of 1, 2, 3"):
        rq.sensitivity(mod, batches, bits=9)
    with pytest.raises(QuantizeError, match="calibration data is empty"):
        rq.sensitivity(mod, [])
    config = QConfig.best(skip_conv_layers=(0, 1, 2))
    with pytest.raises(QuantizeError, match="no layer of the network is quantized with this"):
        rq.sensitivity(mod, batches, config)
