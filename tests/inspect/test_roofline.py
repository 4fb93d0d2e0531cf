"""The least time of each layer, against counts by hand."""

from __future__ import annotations

import pytest
import torch

import relaxquant as rq
from relaxquant.inspect import layer_bounds
from relaxquant.inspect.roofline import layer_bytes
from relaxquant.measure import Peak, peak
from tests.kernels.harness import conv_layer
from tests.networks import make

MACHINE = Peak(
    "some", (1, 2), {(peak.FP32, 1): 50, (peak.FP32, 2): 100, ("dot", 1): 200, ("dot", 2): 400},
    {1: 20.0, 2: 25.0},
)  # fmt: skip


def test_bytes_of_a_layer_by_hand():
    layer = conv_layer(
        channels=20, out_channels=16, size=(6, 7), kernel=(1, 1), residual="uint8", batch=1
    )
    pixels = 6 * 7
    data, out, residual = 32 * pixels, 16 * pixels, 16 * pixels
    weights, bias = 16 * 20, 16 * 4
    per_image = data + out + residual
    assert layer_bytes(layer.spec, layer.weights, 1) == per_image + weights + bias
    assert layer_bytes(layer.spec, layer.weights, 3) == 3 * per_image + weights + bias


@pytest.fixture(scope="module")
def module():
    network, x = make("residual")
    return rq.frontends.from_torch(network, x, dynamic_batch=True)


def test_compute_sets_the_limit_where_the_cache_holds_everything(module):
    found = layer_bounds(module, MACHINE, batch=2, cache_bytes=1 << 30)
    assert not any(layer.by_memory for layer in found)
    stem = found[0]
    assert stem.shape == "3x32x32 -> 16x16x16, 7x7/2"
    assert stem.macs == 2 * 3 * 16 * 49 * 16 * 16
    assert stem.seconds == pytest.approx(stem.macs / 100e9)


def test_memory_sets_it_where_nothing_is_held_and_little_is_computed(module):
    found = layer_bounds(module, MACHINE, batch=2, cache_bytes=0)
    dense = found[-1]
    assert dense.shape == "32x1x1 -> 10"
    assert dense.by_memory
    assert dense.seconds == pytest.approx(dense.bytes / 25e9)
    assert not found[0].by_memory, "the stem multiplies 147 times for each output"


def test_threads_and_precision_choose_the_limits(module):
    calibration = [torch.randn(2, 3, 32, 32, generator=torch.manual_seed(1)).numpy()]
    int8 = rq.quantize(module, rq.QConfig.best(), calibration=calibration)
    settings = {"batch": 1, "threads": 1, "cache_bytes": 0}
    by_shape = [
        sorted(layer_bounds(m, MACHINE, **settings), key=lambda layer: layer.shape)
        for m in (module, int8)
    ]
    assert [{layer.precision for layer in found} for found in by_shape] == [{"fp32"}, {"int8"}]
    for slow, fast in zip(*by_shape, strict=True):
        assert fast.macs == slow.macs
        assert fast.compute_s == pytest.approx(slow.compute_s / 4)
        assert slow.memory_s == pytest.approx(slow.bytes / 20e9)
    fp32, small = (sum(layer.bytes for layer in found) for found in by_shape)
    # A quarter, but for the biases, the logits, and the image's fourth channel.
    assert 0.25 <= small / fp32 < 0.3
