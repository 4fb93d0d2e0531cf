"""TFLite models: imported with the numbers they hold, and computed in integers as LiteRT does."""

from __future__ import annotations

import numpy as np
import pytest

import relaxquant as rq
from tests.frontends.tflite_models import NONE, RELU, RELU6, SAME, Network

UINT8, INT8 = ("uint8", 0.02, 121), ("int8", 0.02, -7)


def picture(tensor, seed=1) -> np.ndarray:
    """Random integers of a tensor's shape and dtype, over their whole range."""
    limits = np.iinfo(tensor.dtype)
    generator = np.random.default_rng(seed)
    return generator.integers(limits.min, limits.max + 1, tensor.shape).astype(tensor.dtype)


def library(path, **settings):
    return rq.compile(rq.frontends.from_tflite(path), threads=1, **settings)


def lite_rt(path):
    """The reference kernels of LiteRT for a model."""
    pytest.importorskip("ai_edge_litert", reason="LiteRT is the other side of the comparison")
    from workbook.litert import LiteRT

    return LiteRT(path, reference=True)


def check(network: Network, output: int, path, largest=1, equal=0.97, operators=None) -> None:
    """Ours agrees with LiteRT's, and no layer is left in float."""
    path = network.save(path / "model.tflite", [output])
    x = picture(network.tensors[network.inputs[0]])
    ours = library(path)
    mine, theirs = ours(x), lite_rt(path)(x)
    assert mine.dtype == theirs.dtype
    difference = np.abs(mine.astype(int) - theirs)
    assert len(np.unique(theirs)) > 8  # the model says something
    assert difference.max() <= largest
    assert np.mean(difference == 0) >= equal
    kept = [record.op for record in ours.kernels if record.schedule == "tvm default"]
    assert kept == [], kept


@pytest.mark.parametrize("activation", [NONE, RELU, RELU6])
@pytest.mark.parametrize("kind", [UINT8, INT8], ids=["uint8", "int8"])
def test_convolution(kind, activation, tmp_path):
    network = Network()
    x = network.input((1, 9, 11, 3), *kind)
    y = network.conv2d(x, 20, 3, stride=2, activation=activation)
    check(network, y, tmp_path)


@pytest.mark.parametrize("zero_point", [3, 128, 201])
@pytest.mark.parametrize("kernel,depthwise", [(1, False), (3, False), (3, True)])
def test_weights_with_zero_points(zero_point, kernel, depthwise, tmp_path):
    network = Network()
    x = network.input((1, 8, 9, 24), *UINT8)
    weights = ("uint8", zero_point, False)
    y = network.conv2d(x, 24, kernel, weights=weights, depthwise=depthwise)
    check(network, y, tmp_path)


@pytest.mark.parametrize("channels,multiplier", [(20, 1), (3, 4), (1, 8)])
@pytest.mark.parametrize("kind", [UINT8, INT8], ids=["uint8", "int8"])
def test_depthwise(kind, channels, multiplier, tmp_path):
    network = Network()
    x = network.input((1, 7, 10, channels), *kind)
    y = network.conv2d(x, channels * multiplier, 3, depthwise=True)
    check(network, y, tmp_path)


def test_a_large_bias_is_kept_to_the_last_bit(tmp_path):
    """Beyond 2 ** 24 a float32 bias would be off by whole steps, and by outputs if scales allow."""
    network = Network()
    x = network.input((1, 4, 4, 8), "int8", 0.02, 3)
    y = network.conv2d(x, 16, 1, (5.0, 0), bias_size=2**30)
    path = network.save(tmp_path / "model.tflite", [y])
    stored = network.tensors[network.operators[0][1][2]].data
    from relaxquant.lower import conv_layers

    (layer,) = conv_layers(rq.frontends.from_tflite(path))
    np.testing.assert_array_equal(layer.weights.bias, stored)


def test_names_of_tensors_survive(tmp_path):
    from relaxquant.inspect.activations import quantized_activations

    network = Network()
    x = network.input((1, 6, 6, 4), *INT8)
    y = network.conv2d(x, 16, 3)
    y = network.pool("AVERAGE", y, 6)
    path = network.save(tmp_path / "model.tflite", [y])
    names = quantized_activations(rq.frontends.from_tflite(path))
    assert names == ["conv_2d/0:0", "average_pool_2d/1:0"]


def test_stock_tvm_builds_the_module(tmp_path):
    network = Network()
    x = network.input((1, 6, 6, 4), *INT8)
    y = network.conv2d(x, 16, 3, padding=SAME)
    path = network.save(tmp_path / "model.tflite", [network.pool("AVERAGE", y, 3)])
    module = rq.frontends.from_tflite(path)
    data = picture(network.tensors[x])
    stock = rq.compile(module, executor="naive", threads=1)(data)
    difference = np.abs(stock.astype(int) - library(path)(data))
    assert difference.max() <= 1 and np.mean(difference == 0) > 0.95


def saved(tmp_path):
    network = Network()
    x = network.input((1, 6, 6, 4), *INT8)
    return network.save(tmp_path / "model.tflite", [network.conv2d(x, 16, 3)])


def test_a_missing_file_is_one_error(tmp_path):
    with pytest.raises(rq.ModelError, match="there is no file"):
        rq.frontends.from_tflite(tmp_path / "absent.tflite")


def test_another_file_is_one_error(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"not a flatbuffer at all")
    with pytest.raises(rq.ModelError, match="is not a TFLite model"):
        rq.frontends.from_tflite(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_file_is_one_error(share, tmp_path):
    path = saved(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(rq.ModelError, match=r"truncated|damaged|not a TFLite model"):
        rq.frontends.from_tflite(path)


def test_dynamic_range_weights_are_one_error(tmp_path):
    network = Network()
    x = network.input((1, 6, 6, 4), "float32")
    network.tensors[x].scale = 1.0  # for the sizes of the weights only
    y = network.conv2d(x, 8, 1, (1.0, 0), weights=("int8", 0, True), bias=False)
    network.tensors[x].scale = network.tensors[y].scale = None
    path = network.save(tmp_path / "model.tflite", [y])
    with pytest.raises(rq.ModelError, match=r"CONV_2D.*conv_2d/0:0.*full integer quantization"):
        rq.frontends.from_tflite(path)


def test_an_unsupported_operator_is_one_error(tmp_path):
    network = Network()
    x = network.input((1, 6, 6, 4), *INT8)
    y = network.operator("L2_NORMALIZATION", [x], ((1, 6, 6, 4), *INT8), "L2NormOptions")
    path = network.save(tmp_path / "model.tflite", [y])
    with pytest.raises(rq.ModelError, match=r"L2_NORMALIZATION.*2_normalization.0:0.*replace"):
        rq.frontends.from_tflite(path)


def test_a_wrong_input_is_one_error(tmp_path):
    ours = library(saved(tmp_path))
    with pytest.raises(rq.InputError, match="'input0' must be int8, got float32"):
        ours(np.zeros((1, 6, 6, 4), np.float32))
    with pytest.raises(rq.InputError, match=r"must have shape \(1, 6, 6, 4\)"):
        ours(np.zeros((1, 4, 6, 6), np.int8))


def test_layers_are_called_after_their_tensors(tmp_path):
    (layer,) = library(saved(tmp_path)).kernels.where(op="conv2d")
    assert layer.layer == "conv_2d/0:0/conv2d"


def test_a_real_network_is_integer_throughout():
    from relaxquant import zoo

    try:
        model = zoo.load_tflite("efficientnet_lite0", offline=True)
    except zoo.ZooError as error:
        pytest.skip(f"not cached: {error}")
    ours = library(model.path, requantize="tflite")
    heavy = [record for record in ours.kernels if record.macs]
    assert len(heavy) == 50
    assert {record.precision for record in heavy} == {"int8"}
    assert not ours.kernels.where(schedule="tvm default")
    x = model.pixels(zoo.evaluation_images(model, 1, images="synthetic").x)
    np.testing.assert_array_equal(ours(x), lite_rt(model.path)(x))
