"""A quantized network with all zero points forced to 0."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.ir import GenericConst

import relaxquant as rq
from relaxquant import measure
from relaxquant.frontends.rewriter import operator_of
from tests.frontends.test_tflite import INT8, UINT8, picture
from tests.frontends.tflite_models import Network


def imported(network: Network, output: int, folder):
    return rq.frontends.from_tflite(network.save(folder / "model.tflite", [output]))


def two_layers(kind, weights, **second):
    network = Network()
    x = network.input((1, 9, 9, 5), *kind)
    y = network.conv2d(x, 24, 3, weights=weights)
    return network, x, network.conv2d(y, 24, 3, weights=weights, **second)


def parameters(module) -> list[tuple[str, str, np.ndarray, np.ndarray]]:
    """(what, dtype, scale, zero point) of every quantize, and dequantize of a constant."""
    found = []

    def visit(call):
        operator = operator_of(call)
        if operator == "relax.quantize":
            what, dtype = "activation", call.attrs["out_dtype"]
        elif operator == "relax.dequantize" and isinstance(call.args[0], GenericConst):
            what, dtype = "constant", call.args[0].value.numpy().dtype
        else:
            return
        scale, zero_point = (each.value.numpy() for each in call.args[1:3])
        found.append((what, str(dtype), scale, zero_point))

    relax.analysis.post_order_visit(module["main"], visit)
    return found


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(
    ("kind", "weights"), [(UINT8, ("uint8", 140, False)), (INT8, ("int8", 0, True))]
)
def test_zero_points_are_gone_and_the_values_are_not(kind, weights, depthwise, tmp_path):
    network, x, y = two_layers(kind, weights, depthwise=depthwise)
    module = imported(network, y, tmp_path)
    symmetric = rq.frontends.forced_symmetric(module)
    *inside, returned = parameters(symmetric)
    assert {what for what, *_ in inside} == {"activation", "constant"}
    assert not any(zero_point.any() for *_, zero_point in inside)
    assert returned[1:] == parameters(module)[-1][1:]
    ours, theirs, exact = (
        rq.compile(each, threads=1)
        for each in (symmetric, module, rq.frontends.without_quantization(module))
    )
    assert {r.precision for r in ours.kernels if r.macs} == {"int8"}
    data = picture(network.tensors[x])
    assert measure.signal_to_noise(exact(data), ours(data)) > 25  # dB; other scales, other noise
    assert (ours(data) != theirs(data)).any()


def kernels(module) -> list[np.ndarray]:
    """What the weights of all convolutions stand for."""
    found = []

    def visit(call):
        if operator_of(call) == "relax.dequantize" and isinstance(call.args[0], GenericConst):
            array, scale, zero_point = (each.value.numpy() for each in call.args[:3])
            if array.dtype.itemsize == 1:
                steps = scale.reshape([-1, 1, 1, 1]) if scale.size > 1 else scale
                found.append((array.astype(float) - zero_point) * steps)

    relax.analysis.post_order_visit(module["main"], visit)
    return found


def test_a_scale_for_each_channel_keeps_small_weights(tmp_path):
    network, _, y = two_layers(UINT8, ("uint8", 140, False))
    for tensor in network.tensors:
        if tensor.data is not None and tensor.data.dtype == np.uint8:
            tensor.data[::2] = 140 + tensor.data[::2] % 8  # far below the largest, 140 steps
    module = imported(network, y, tmp_path)
    worst = {}
    for per_channel in (False, True):
        symmetric = rq.frontends.forced_symmetric(module, per_channel=per_channel)
        pairs = zip(kernels(symmetric), kernels(module), strict=True)
        worst[per_channel] = max(np.abs(a - b)[::2].max() / np.abs(b[::2]).max() for a, b in pairs)
        assert {r.precision for r in rq.compile(symmetric, threads=1).kernels if r.macs} == {"int8"}
    assert worst[True] < 0.5 / 127 + 1e-6 < 1 / 16 < worst[False]


def test_a_symmetric_network_stays_as_it_is(tmp_path):
    network = Network()
    x = network.input((1, 6, 6, 8), "int8", 1 / 128, 0)
    y = network.conv2d(x, 16, 3, (0.05, 0), weights=("int8", 0, True))
    module = imported(network, network.conv2d(y, 16, 1, (0.05, 0)), tmp_path)
    ours, theirs = (
        rq.compile(each, threads=1) for each in (rq.frontends.forced_symmetric(module), module)
    )
    data = picture(network.tensors[x])
    np.testing.assert_array_equal(ours(data), theirs(data))


def test_ranges_from_zero_stay_unsigned_with_their_scale(tmp_path):
    network = Network()
    x = network.input((1, 4, 4, 8), *INT8)
    y = network.conv2d(x, 16, 1, (0.1, -128))
    module = rq.frontends.forced_symmetric(imported(network, network.conv2d(y, 16, 1), tmp_path))
    kinds = [(dtype, float(scale)) for what, dtype, scale, _ in parameters(module)
             if what == "activation"]  # fmt: skip
    assert ("uint8", pytest.approx(0.1)) in kinds


def test_constants_are_int8_and_biases_floats(tmp_path):
    network, _, y = two_layers(UINT8, ("uint8", 140, False))
    symmetric = rq.frontends.forced_symmetric(imported(network, y, tmp_path))
    constants = []
    relax.analysis.post_order_visit(
        symmetric["main"],
        lambda e: constants.append(e.value.numpy()) if isinstance(e, GenericConst) else None,
    )
    large = [array for array in constants if array.size > 1]
    assert {str(array.dtype) for array in large} == {"int8", "float32"}
    weights = [array for array in large if array.dtype == np.int8]
    assert all(np.abs(array.astype(int)).max() == 127 for array in weights)
