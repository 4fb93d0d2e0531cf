"""Bias correction and compensated rounding in whole networks; the columns they look at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from relaxquant.quantize import QConfig, QuantizeError
from relaxquant.quantize.graph import read_graph
from relaxquant.quantize.layer_inputs import as_matrix, as_weight, columns_of, nothing_seen
from relaxquant.quantize.pipeline import quantize


def chain(layers, x, bias=True):
    y = layers.relu(layers.conv(x, "c1", 16, bias=bias), "r1")
    y = layers.relu(layers.conv(y, "c2", 16, groups=16, bias=bias), "r2")
    return layers.head(layers.relu(layers.conv(y, "c3", 12, strides=2, bias=bias), "r3"))


def run_all(run, batches):
    return np.concatenate([run(batch)[0] for batch in batches])


def outputs(mod, stock, batches, **fields):
    config = QConfig.best(calibrate_mode="min_max", **fields)
    return run_all(stock(quantize(mod, config, iter(batches), compile_fn=stock)), batches)


@pytest.mark.parametrize("bias", [True, False])
def test_bias_correction_takes_out_the_mean_shift(net, stock, batches, bias):
    mod = net(lambda layers, x: chain(layers, x, bias))
    exact = run_all(stock(mod), batches)
    few = {"nbit_weight": 3, "weight_scale": "max", "weight_rounding": "nearest"}
    shift = {
        corrected: np.abs(
            (outputs(mod, stock, batches, bias_correction=corrected, **few) - exact).mean(axis=0)
        )
        for corrected in (False, True)
    }
    assert shift[True].mean() < 0.5 * shift[False].mean()


def test_a_bias_is_added_where_there_was_none(net, stock, batches):
    mod = net(lambda layers, x: layers.relu(layers.conv(x, "c1", bias=False), "r1"))

    def operators(corrected):
        config = QConfig.best(bias_correction=corrected)
        graph = read_graph(quantize(mod, config, batches, compile_fn=stock))
        return [node.op for node in graph.nodes]

    assert "add" not in operators(False) and operators(True).count("add") == 1


@pytest.mark.parametrize("rounding", ["compensated"])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_compensated_rounding_is_nearer_to_the_original(net, stock, batches, rounding, granularity):
    mod = net(chain)
    exact = run_all(stock(mod), batches)
    fields = {"nbit_weight": 3, "weight_scale": "mse", "weight_granularity": granularity}
    error = {
        kind: np.mean((outputs(mod, stock, batches, weight_rounding=kind, **fields) - exact) ** 2)
        for kind in ("nearest", rounding)
    }
    assert error[rounding] < 0.8 * error["nearest"]


def test_weight_scale_mse_clips(net, stock, batches):
    mod = net(chain)
    scales = {}
    for method in ("max", "mse"):
        config = QConfig.best(
            nbit_weight=3, nbit_ends=None, weight_scale=method, weight_rounding="nearest"
        )
        graph = read_graph(quantize(mod, config, batches, compile_fn=stock))
        weights = [n for n in graph.nodes if n.op == "dequantize" and not n.inputs]
        scales[method] = np.concatenate([n.value.args[1].value.numpy() for n in weights])
    assert np.all(scales["mse"] <= scales["max"] * (1 + 1e-6))
    assert scales["mse"].mean() < 0.95 * scales["max"].mean()


def test_data_is_needed_even_with_global_scale(net, stock):
    config = QConfig(bias_correction=True, skip_conv_layers=None)
    with pytest.raises(QuantizeError, match="calibration data is missing"):
        quantize(net(chain), config, compile_fn=stock)


@pytest.mark.parametrize(
    "attrs",
    [
        {"padding": 1},
        {"padding": (2, 1), "strides": (2, 1), "dilation": (1, 2)},
        {"padding": (0, 1, 2, 3), "groups": 2},
        {"padding": 0, "groups": 4, "kernel": 1},
    ],
)
def test_columns_times_weights_is_the_convolution(net, attrs):
    mod = net(lambda layers, x: layers.conv(x, "c", 8, bias=False, **attrs), shape=(2, 4, 9, 7))
    (node,) = [n for n in read_graph(mod).nodes if n.op == "nn.conv2d"]
    weight = node.constants[0].value.numpy()
    x = np.random.default_rng(0).normal(size=(2, 4, 9, 7)).astype(np.float32)
    columns = columns_of(node)
    found = columns.of(x, np.random.default_rng(0))
    product = np.einsum("gnk,gmk->ngm", found, as_matrix(weight, node)).reshape(-1, 8)
    pads = [int(p) for p in node.attrs["padding"]]
    pads = pads * (4 // len(pads))
    padded = F.pad(torch.from_numpy(x), (pads[1], pads[3], pads[0], pads[2]))
    strides, dilation = ([int(v) for v in node.attrs[k]] for k in ("strides", "dilation"))
    expected = F.conv2d(
        padded, torch.from_numpy(weight), None, strides, 0, dilation, int(node.attrs["groups"])
    )
    expected = expected.permute(0, 2, 3, 1).reshape(-1, 8).numpy()
    assert columns.per_image > len(expected) // 2  # all of them, in another order
    np.testing.assert_allclose(np.sort(product, 0), np.sort(expected, 0), atol=1e-4)
    np.testing.assert_array_equal(as_weight(as_matrix(weight, node), node), weight)


def test_columns_are_drawn_where_there_are_too_many(net):
    mod = net(lambda layers, x: layers.conv(x, "c", bias=False), shape=(2, 3, 64, 64))
    (node,) = [n for n in read_graph(mod).nodes if n.op == "nn.conv2d"]
    columns = columns_of(node)
    x = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    once, twice = (columns.of(x, np.random.default_rng(5)) for _ in range(2))
    assert once.shape == (1, 2 * columns.per_image, 27) and columns.per_image < 64 * 64
    np.testing.assert_array_equal(once, twice)


def test_moments_are_means_over_all_columns():
    rng = np.random.default_rng(0)
    seen, parts = nothing_seen(2, 5, with_gram=True), []
    for size in (3, 40):
        columns = rng.normal(1, 1, size=(2, size, 5)).astype(np.float32)
        seen.add(columns, np.rint(columns))
        parts.append(columns)
    columns = np.concatenate(parts, axis=1)
    np.testing.assert_allclose(seen.mean_x, columns.mean(axis=1), rtol=1e-5)
    for group in range(2):
        covariance = np.cov(np.rint(columns[group]).T, bias=True)
        np.testing.assert_allclose(seen.second_moment(True)[group], covariance, atol=1e-4)
