"""The float network behind a quantized one."""

from __future__ import annotations

import numpy as np

import relaxquant as rq
from tests.frontends.test_tflite import INT8, UINT8, picture
from tests.frontends.tflite_models import RELU6, Network


def test_it_is_float_and_close_to_the_quantized_one(tmp_path):
    network = Network()
    x = network.input((1, 9, 9, 5), *UINT8)
    y = network.conv2d(x, 24, 3, weights=("uint8", 140, False), activation=RELU6)
    y = network.conv2d(y, 24, 3, depthwise=True, weights=("uint8", 120, False))
    y = network.conv2d(y, 10, 1, weights=("uint8", 120, False))
    module = rq.frontends.from_tflite(network.save(tmp_path / "model.tflite", [y]))
    twin = rq.frontends.without_quantization(module)
    data = picture(network.tensors[x])
    exact, integer = (rq.compile(each, threads=1) for each in (twin, module))
    assert {r.precision for r in exact.kernels if r.macs} == {"fp32"}
    assert {r.precision for r in integer.kernels if r.macs} == {"int8"}
    difference = np.abs(exact(data).astype(int) - integer(data))
    assert np.median(difference) <= 1 and difference.max() <= 6
    assert difference.any()  # it was not quantized in between


def test_ranges_clamp(tmp_path):
    """A layer whose integers stand for 0 and more is a ReLU, though nothing says so."""
    network = Network()
    x = network.input((1, 4, 4, 8), *INT8)
    y = network.conv2d(x, 16, 1, (0.1, -128))
    path = network.save(tmp_path / "model.tflite", [network.conv2d(y, 16, 1, (0.1, 0))])
    twin = rq.frontends.without_quantization(rq.frontends.from_tflite(path))
    clips = [line for line in twin.script(show_meta=False).splitlines() if "R.clip" in line]
    assert len(clips) == 1  # what is returned is quantized in any case
    assert "T.float64(0.0), T.float64(25.5" in clips[0]
