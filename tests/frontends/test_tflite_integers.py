"""``requantize="tflite"``: every operator gives what LiteRT's reference kernels do, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

import relaxquant as rq
from tests.frontends.test_tflite import INT8, UINT8, lite_rt, picture
from tests.frontends.tflite_models import NONE, RELU6, SAME, VALID, Network

KINDS = pytest.mark.parametrize("kind", [UINT8, INT8], ids=["uint8", "int8"])


def check(network: Network, output: int, folder, distinct=8) -> None:
    """Equal integers for random inputs, and no operator left in float."""
    path = network.save(folder / "model.tflite", [output])
    inputs = [picture(network.tensors[x], seed) for seed, x in enumerate(network.inputs)]
    library = rq.compile(rq.frontends.from_tflite(path), threads=1, requantize="tflite")
    expected = lite_rt(path)(*inputs)
    assert len(np.unique(expected)) >= distinct
    np.testing.assert_array_equal(library(*inputs), expected)
    assert not library.kernels.where(schedule="tvm default")


def branches(network: Network, kind, scales, channels=20):
    """Convolutions of one input, one for each output scale."""
    x = network.input((1, 7, 9, 8), *kind)
    return [network.conv2d(x, channels, 1, (scale, kind[2])) for scale in scales]


@KINDS
@pytest.mark.parametrize("activation", [NONE, RELU6])
def test_convolutions(kind, activation, tmp_path):
    network = Network()
    x = network.input((1, 9, 9, 5), *kind)
    y = network.conv2d(x, 24, 3, stride=2, activation=activation)
    y = network.conv2d(y, 24, 3, depthwise=True)
    check(network, network.conv2d(y, 10, 1), tmp_path)


@KINDS
@pytest.mark.parametrize("activation", [NONE, RELU6])
@pytest.mark.parametrize("scales", [(0.05, 0.03, 0.06), (0.04, 0.04, 0.04), (0.01, 0.09, 0.08)])
def test_add(kind, scales, activation, tmp_path):
    network = Network()
    a, b = branches(network, kind, scales[:2])
    out = (network.tensors[a].shape, kind[0], scales[2], kind[2])
    y = network.operator("ADD", [a, b], out, "AddOptions", FusedActivationFunction=activation)
    check(network, y, tmp_path)


@KINDS
@pytest.mark.parametrize("scales", [(0.05, 0.03, 0.06), (0.04, 0.04, 0.09)])
def test_mul(kind, scales, tmp_path):
    network = Network()
    a, b = branches(network, kind, scales[:2])
    out = (network.tensors[a].shape, kind[0], scales[2], kind[2])
    y = network.operator("MUL", [a, b], out, "MulOptions", FusedActivationFunction=NONE)
    check(network, y, tmp_path)


@KINDS
def test_squeeze_and_excite(kind, tmp_path):
    """A product by one pixel for each channel, and a sigmoid by table."""
    network = Network()
    x = network.input((1, 6, 6, 20), *kind)
    pooled = network.pool("AVERAGE", x, 6)
    gate = network.conv2d(pooled, 20, 1)
    low = np.iinfo(kind[0]).min
    gate = network.operator("LOGISTIC", [gate], ((1, 1, 1, 20), kind[0], 1 / 256, low))
    out = ((1, 6, 6, 20), kind[0], 0.012, kind[2])
    y = network.operator("MUL", [x, gate], out, "MulOptions", FusedActivationFunction=NONE)
    check(network, y, tmp_path)


@pytest.mark.parametrize("channels", [(16, 32, 20), (10, 7, 3)])
def test_concat_of_scales(channels, tmp_path):
    network = Network()
    x = network.input((1, 5, 6, 8), *UINT8)
    parts = [
        network.conv2d(x, count, 1, (0.05 - 0.01 * i, 110 + 9 * i))
        for i, count in enumerate(channels)
    ]
    out = ((1, 5, 6, sum(channels)), "uint8", 0.04, 117)
    y = network.operator(
        "CONCATENATION", parts, out, "ConcatenationOptions", Axis=3, FusedActivationFunction=NONE
    )
    check(network, y, tmp_path)


@KINDS
@pytest.mark.parametrize("kernel,stride,padding", [(3, 1, SAME), (7, 1, VALID), (2, 2, VALID)])
@pytest.mark.parametrize("pool", ["AVERAGE", "MAX"])
def test_pooling(pool, kind, kernel, stride, padding, tmp_path):
    network = Network()
    x = network.input((1, 8, 9, 20), *kind)
    check(network, network.pool(pool, x, kernel, stride, padding), tmp_path)


@KINDS
@pytest.mark.parametrize("scale", [0.02, 0.0137, 0.041])
@pytest.mark.parametrize("keep", [True, False])
def test_mean(kind, scale, keep, tmp_path):
    network = Network()
    x = network.input((1, 7, 7, 40), *kind)
    axes = network.constant(np.array([1, 2], np.int32))
    shape = (1, 1, 1, 40) if keep else (1, 40)
    out = (shape, kind[0], scale, kind[2] - 3)
    y = network.operator("MEAN", [x, axes], out, "ReducerOptions", KeepDims=keep)
    check(network, y, tmp_path)


@pytest.mark.parametrize("given,wanted", [(UINT8, INT8), (INT8, UINT8), (INT8, ("int8", 0.03, 5))])
def test_requantize(given, wanted, tmp_path):
    network = Network()
    x = network.input((1, 5, 6, 4), *given)
    y = network.operator("QUANTIZE", [x], ((1, 5, 6, 4), *wanted), "QuantizeOptions")
    check(network, network.conv2d(y, 16, 1), tmp_path)


def test_requantize_an_image_before_its_first_convolution(tmp_path):
    """Whose border then lies in memory."""
    network = Network()
    x = network.input((1, 9, 11, 3), *UINT8)
    y = network.operator("QUANTIZE", [x], ((1, 9, 11, 3), "int8", 0.03, 5), "QuantizeOptions")
    check(network, network.conv2d(y, 16, 5, stride=2), tmp_path)


@KINDS
def test_dense_after_flatten(kind, tmp_path):
    network = Network()
    x = network.input((1, 4, 5, 6), *kind)
    y = network.conv2d(x, 12, 3)
    shape = network.constant(np.array([1, 240], np.int32))
    y = network.operator(
        "RESHAPE", [y, shape], ((1, 240), *network.same(y)), "ReshapeOptions",
        NewShape=np.array([1, 240], np.int32),
    )  # fmt: skip
    weights = ("uint8", 119) if kind == UINT8 else None
    check(network, network.dense(y, 30, (0.2, kind[2]), weights), tmp_path)


@KINDS
@pytest.mark.parametrize(
    "scales", [(0.0105, 0.016, 0.0924), (1.0, 0.125, 16.0)], ids=["any", "ties"]
)
def test_dense_rounds_once(kind, scales, tmp_path):
    """So many outputs that other roundings, or a factor in float32, would be seen to differ."""
    network = Network()
    given, weight, out = scales
    x = network.input((4, 24), kind[0], given, kind[2])
    weights = ("uint8", 119) if kind == UINT8 else None
    check(network, network.dense(x, 20_000, (out, kind[2]), weights, weight), tmp_path)


@KINDS
def test_softmax(kind, tmp_path):
    network = Network()
    x = network.input((1, 50), kind[0], 0.06, kind[2])
    low = np.iinfo(kind[0]).min
    out = ((1, 50), kind[0], 1 / 256, low)
    check(network, network.operator("SOFTMAX", [x], out, "SoftmaxOptions", Beta=1.0), tmp_path)


@KINDS
def test_pad_before_a_strided_convolution(kind, tmp_path):
    network = Network()
    x = network.input((1, 8, 8, 16), *kind)
    widths = network.constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    y = network.operator("PAD", [x, widths], ((1, 10, 10, 16), *kind), "PadOptions")
    check(network, network.conv2d(y, 16, 3, stride=2, padding=VALID), tmp_path)


@KINDS
@pytest.mark.parametrize("half_pixel,corners", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("method", ["BILINEAR", "NEAREST_NEIGHBOR"])
def test_resize(method, kind, half_pixel, corners, tmp_path):
    network = Network()
    x = network.input((1, 5, 6, 20), *kind)
    size = network.constant(np.array([9, 12], np.int32))
    options = {"BILINEAR": "ResizeBilinear", "NEAREST_NEIGHBOR": "ResizeNearestNeighbor"}[method]
    y = network.operator(
        f"RESIZE_{method}", [x, size], ((1, 9, 12, 20), *kind), f"{options}Options",
        AlignCorners=corners, HalfPixelCenters=half_pixel,
    )  # fmt: skip
    check(network, y, tmp_path)
