"""16-bit activations and weights: how int32 is shared, and what becomes of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tvm.relax import op as R

import relaxquant as rq
from relaxquant.kernels.int32_sums import INT32_MAX, largest_sums
from relaxquant.lower import conv_layers
from relaxquant.lower.prepare import prepared
from relaxquant.quantize import QConfig
from relaxquant.quantize.pipeline import quantize
from relaxquant.quantize.summary import summary


def network(layers, x):
    """A stem, two wide layers that read one tensor, and a head."""
    y = layers.relu(layers.conv(x, "stem", channels=64), "r0")
    y = layers.emit(R.nn.max_pool2d(y, (2, 2), (2, 2)), "pool")
    z = layers.relu(layers.conv(y, "inner", channels=64), "r1")
    z = layers.relu(
        layers.add(layers.conv(z, "last", 64), layers.conv(y, "side", 64, 1), "sum"), "r2"
    )
    return layers.head(z)


WIDTHS = {  # (weights, activations) -> bits that the stem's weights get at least
    (8, 16): 8,
    (16, 8): 14,
    (16, 16): 11,
}


def quantized(net, batches, weight: int, data: int, **settings):
    module = net(network)
    config = QConfig.best(nbit_weight=weight, nbit_input=data, calibrate_mode="min_max", **settings)
    return module, quantize(module, config, batches)


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("widths", WIDTHS, ids=lambda w: f"w{w[0]}a{w[1]}")
def test_every_layer_runs_in_integers(widths, granularity, net, batches):
    """The weights as they were rounded pass the proof; what they leave is used, or not needed."""
    _, qmodule = quantized(net, batches, *widths, weight_granularity=granularity)
    layers = conv_layers(qmodule)
    assert {layer.spec.precision for layer in layers} == {"int16"}
    used, asked = [], 2 ** (widths[1] - 1) - 1
    for layer in layers:
        weight = layer.weights.weight
        largest = largest_of(qmodule, layer.label)
        sums = largest_sums(weight, largest, layer.weights.bias)
        assert sums.max() <= INT32_MAX
        used.append(sums.max() / INT32_MAX)
    if max(used) < 0.9:
        assert min(largest_of(qmodule, layer.label) for layer in layers) >= asked
    assert np.abs(layers[0].weights.weight.astype(int)).max() >= 2 ** (WIDTHS[widths] - 1) - 1


def largest_of(qmodule, label: str) -> int:
    """Largest magnitude of a layer's data, as the lowering finds it."""
    _, graph = prepared(qmodule, "auto")
    return next(node.inputs[0].largest for node in graph.nodes if node.label == label)


@pytest.mark.parametrize("widths", [(8, 8), *WIDTHS], ids=lambda w: f"w{w[0]}a{w[1]}")
def test_the_integers_are_those_of_the_module(widths, net, batches, stock):
    module, qmodule = quantized(net, batches, *widths)
    (simulated,) = stock(qmodule)(batches[0])
    found = rq.compile(qmodule)(batches[0])
    (exact,) = stock(module)(batches[0])
    own_noise = np.abs(simulated - exact).max()
    assert np.abs(found - simulated).max() < max(own_noise, 1e-4)


def test_the_summary_says_how_many_bits_are_used(net, batches):
    """As the lowering finds it: all integers between the bounds, from 0 up where none is below."""
    _, qmodule = quantized(net, batches, 16, 16)
    rows = [row for row in summary(qmodule) if row.dtype == "int16"]
    shown = {row.bits for row in rows if row.producer != "weight"}
    for layer in conv_layers(qmodule):
        largest = largest_of(qmodule, layer.label)
        assert shown & {math.log2(largest + 1), math.log2(2 * largest + 1)}
    assert 8 < min(shown) < 15
    weights = [row.bits for row in rows if row.producer == "weight"]
    assert len(weights) == 5 and 8 < min(weights) < max(weights) <= 16


def test_more_bits_are_more_accurate(net, batches, stock):
    noise = {}
    for widths in [(8, 8), *WIDTHS]:
        module, qmodule = quantized(net, batches, *widths, bias_correction=False, asymmetric=False)
        (exact,) = stock(module)(batches[0])
        noise[widths] = np.abs(rq.compile(qmodule)(batches[0]) - exact).mean()
    assert noise[8, 16] < noise[8, 8] and noise[16, 8] < noise[8, 8]
    assert noise[16, 16] < 0.1 * noise[8, 8]


def test_one_layer_alone_may_have_16_bits(net, batches):
    """Mixed: the layer's data become int16, the others stay bytes."""
    module = net(network)
    config = QConfig.best(layer_bits={"inner": (16, 8)}, calibrate_mode="min_max")
    layers = {layer.label: layer.spec for layer in conv_layers(quantize(module, config, batches))}
    assert layers["inner"].precision == layers["side"].precision == "int16"  # they share data
    assert layers["stem"].precision == layers["last"].precision == "int8"


def test_bytes_may_be_stored_as_int16(net, batches):
    module = net(network)
    config = QConfig.best(dtype_input="int16", calibrate_mode="min_max")
    qmodule = quantize(module, config, batches)
    layers = {layer.label: layer.spec.precision for layer in conv_layers(qmodule)}
    assert set(layers.values()) == {"int16"}
    assert {largest_of(qmodule, label) for label in layers} == {127, 255}


@pytest.mark.parametrize(
    "settings, dtype",
    [
        ({}, None),
        ({"dtype_activation": "int16"}, "int16"),
        ({"dtype_activation": "int8"}, "int8"),
        ({"nbit_activation": 16}, "int16"),
        ({"nbit_activation": 8, "dtype_activation": "int16"}, "int8"),
        ({"nbit_activation": 16, "dtype_activation": "int8"}, "int8"),
        ({"dtype_activation": "int16", "weight_granularity": "per_tensor"}, "int16"),
    ],
)
def test_sums_of_fewer_bits(settings, dtype, net, batches, stock):
    """The narrower of both fields counts; all sums saturate, in the module and in the kernels."""
    module = net(network)
    config = QConfig.best(calibrate_mode="min_max", reduce_range=False, **settings)
    qmodule = quantize(module, config, batches)
    text = qmodule.script(show_meta=False)
    assert text.count(f'out_dtype="{dtype}"') >= 5 if dtype else 'out_dtype="int16"' not in text
    narrow = {layer.spec.epilogue.narrow for layer in conv_layers(qmodule)}
    assert narrow == {int(dtype.removeprefix("int")) if dtype else None}
    library = rq.compile(qmodule)
    assert not library.kernels.where(schedule="tvm default")
    (simulated,) = stock(qmodule)(batches[0])
    np.testing.assert_allclose(library(batches[0]), simulated, rtol=0, atol=0.05)


def test_int8_sums_lose_what_int16_sums_keep(net, batches, stock):
    """With relay's scales hardly a sum needs 16 bits, and hardly one fits 8."""
    module = net(network)
    (exact,) = stock(module)(batches[0])
    noise = {}
    for dtype in ("int8", "int16", "int32"):
        config = QConfig(dtype_activation=dtype, skip_dense_layer=False, skip_conv_layers=None)
        found = rq.compile(quantize(module, config, batches))(batches[0])
        noise[dtype] = np.abs(found - exact).mean()
    assert noise["int8"] > 3 * noise["int16"] >= 3 * noise["int32"]
