"""Fields of `QConfig` that say how: each test fails where its field is ignored."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op as R

from relaxquant.quantize import QConfig, QuantizeError
from relaxquant.quantize.pipeline import quantize
from relaxquant.quantize.summary import summary
from tests.quantize.values import quantized_values


def two(layers, x):
    return layers.conv(layers.relu(layers.conv(x, "c1"), "r1"), "c2")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"rounding": "UPWARD"}, lambda v: np.floor(v + 0.5)),
        ({"rounding": "TONEAREST"}, lambda v: np.copysign(np.floor(np.abs(v) + 0.5), v)),
        ({"rounding": "TOEVEN"}, np.rint),
        ({"rounding": "UPWARD", "round_for_shift": False}, np.floor),
    ],
)
def test_rounding_and_round_for_shift(net, stock, settings, expected):
    # c1 stays in float: multiples of 1/32, where a step is 1/16.
    def body(layers, x):
        y = layers.emit(R.nn.conv2d(x, relax.const(np.full((3, 3, 1, 1), 1 / 32, "float32"))), "c1")
        return layers.conv(y, "c2")

    x = np.arange(2 * 3 * 8 * 8, dtype=np.float32).reshape(2, 3, 8, 8) % 37 - 18
    config = QConfig(skip_conv_layers=(0,), dtype_input="int8", global_scale=8.0, **settings)
    values = quantized_values(quantize(net(body), config), stock, x)["c1_q"]
    exact = x.sum(axis=1, keepdims=True, dtype=np.float64) / 32 * 16
    assert (exact % 1 == 0.5).any() and (exact < 0).any()
    wanted = np.clip(expected(exact), -128, 127)
    np.testing.assert_array_equal(values, np.broadcast_to(wanted, values.shape))


def test_the_defaults_give_powers_of_two(net):
    rows = summary(quantize(net(two), QConfig(skip_conv_layers=None)))
    scales = {(row.tensor, row.producer): row.scale for row in rows}
    assert scales["x", "input"] == scales["r1", "nn.relu"] == 8 / 128
    weights = [row for row in rows if row.producer == "weight"]
    assert [row.channels for row in weights] == [1, 1]
    assert all(np.frexp(row.scale)[0] == 0.5 for row in weights)


def test_weight_scale(net):
    def scale(name):
        config = QConfig(skip_conv_layers=None, weight_scale=name)
        return next(r for r in summary(quantize(net(two), config)) if r.producer == "weight").scale

    assert np.frexp(scale("max"))[0] != 0.5
    assert scale("max") < scale("power2") < 2 * scale("max")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"dtype_weight": "int8"}, "int8"),
        ({"dtype_weight": "auto"}, "int8"),
        ({"dtype_weight": "int16"}, "int16"),
        ({"dtype_weight": "auto", "nbit_weight": 16, "dtype_input": "int16"}, "int16"),
    ],
)
def test_dtype_weight(net, settings, expected):
    rows = summary(quantize(net(two), QConfig(skip_conv_layers=None, **settings)))
    assert {row.dtype for row in rows if row.producer == "weight"} == {expected}


class Data:
    """Batches that count how often they are read."""

    def __init__(self, batches):
        self.batches, self.reads = batches, 0

    def __iter__(self):
        self.reads += 1
        return iter(self.batches)


@pytest.mark.parametrize(("chunk", "sizes"), [(-1, [2]), (1, [1, 1]), (2, [2]), (3, [2])])
def test_calibrate_chunk_by(net, stock, batches, chunk, sizes):
    def body(layers, x):
        y = layers.relu(layers.conv(x, "c1"), "r1")
        return layers.conv(layers.relu(layers.conv(y, "c2"), "r2"), "c3")

    observed = []

    def compile_fn(module):
        run = stock(module)
        observed.append(len(module["main"].ret_ty.fields))
        return run

    once = QConfig.best(skip_conv_layers=(0,), bias_correction=False)
    config = dataclasses.replace(once, calibrate_chunk_by=chunk)
    data = Data(batches)
    qmod = quantize(net(body), config, data, compile_fn=compile_fn)
    assert observed == sizes and data.reads == len(sizes)
    whole = quantize(net(body), once, batches, compile_fn=stock)
    assert summary(qmod) == summary(whole)


def test_data_that_can_be_read_once_is_refused_for_several_chunks(net, stock, batches):
    config = QConfig.best(calibrate_chunk_by=1, bias_correction=False)
    with pytest.raises(QuantizeError, match="data is read 2 times, but it can be read only once"):
        quantize(net(two), config, (batch for batch in batches), compile_fn=stock)
    config = QConfig.best(calibrate_chunk_by=2, bias_correction=False)
    quantize(net(two), config, (batch for batch in batches), compile_fn=stock)


@pytest.mark.parametrize("rounding", ["TOEVEN", "UPWARD", "TONEAREST"])
@pytest.mark.parametrize("nbit", [4, 8])
def test_the_summary_names_tensors_whatever_stands_before_quantize(net, rounding, nbit):
    config = QConfig(skip_conv_layers=None, rounding=rounding, nbit_input=nbit)
    rows = summary(quantize(net(two), config))
    names = [(row.tensor, row.producer) for row in rows if row.producer != "weight"]
    assert names == [("x", "input"), ("r1", "nn.relu")]
