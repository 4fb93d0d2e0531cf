"""Cross-layer equalisation: the float function stays, ranges become alike."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.relax import op as R

from relaxquant.quantize import QConfig, annotate
from relaxquant.quantize.equalize import balance, equalize, find_pairs
from relaxquant.quantize.graph import prepare, read_graph, rebuild
from relaxquant.quantize.pipeline import quantize


def two(layers, x):
    """conv, ReLU, conv."""
    return layers.conv(layers.relu(layers.conv(x, "c0"), "r0"), "c1")


def depthwise(layers, x):
    """conv, ReLU6 that clips, depthwise conv."""
    y = layers.emit(R.clip(layers.conv(x, "c0"), 0.0, 0.5), "r0")
    return layers.conv(y, "c1", groups=8)


def channels_of_r0(mod, stock, batches) -> np.ndarray:
    """Largest value of each channel between the layers."""
    graph = read_graph(mod)
    (node,) = [node for node in graph.nodes if node.name == "r0"]
    observed = stock(rebuild(mod, graph, result=node.var))
    return np.max([observed(b)[0].max(axis=(0, 2, 3)) for b in batches], axis=0)


@pytest.mark.parametrize("body", [two, depthwise])
def test_the_float_function_and_all_names_stay(net, stock, batches, body):
    mod = prepare(net(body))
    new = equalize(mod, annotate(mod), batches, compile_fn=stock)
    for batch in batches:
        before, after = (stock(m)(batch)[0] for m in (mod, new))
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    assert [n.name for n in read_graph(new).nodes] == [n.name for n in read_graph(mod).nodes]


def test_channels_move_by_the_factors(net, stock, batches):
    mod = prepare(net(two))
    (pair,) = find_pairs(annotate(mod).graph)
    before = channels_of_r0(mod, stock, batches)
    new = equalize(mod, annotate(mod), batches, compile_fn=stock)
    factor = balance(annotate(mod).graph, pair, before)
    assert factor.max() / factor.min() > 1.2
    np.testing.assert_allclose(channels_of_r0(new, stock, batches), before * factor, rtol=1e-4)
    # Half-way: what data and the weights that read it differ by is shared between them.
    weight = np.abs(read_graph(mod).nodes[pair.second].constants[0].value.numpy())
    product = weight.max(axis=(0, 2, 3)) / before
    np.testing.assert_allclose(factor**2 / product, (factor**2 / product)[0], rtol=1e-4)


def test_a_channel_that_reaches_the_ceiling_of_relu6_stays(net, stock, batches):
    mod = prepare(net(depthwise))
    (pair,) = find_pairs(annotate(mod).graph)
    highest = channels_of_r0(mod, stock, batches)
    factor = balance(annotate(mod).graph, pair, highest)
    assert pair.ceiling == 0.5 and (highest >= 0.5).any()
    assert (factor[highest >= 0.5] == 1).all()
    assert (highest * factor <= 0.5 * (1 + 1e-6)).all()


def test_the_field_acts(net, stock, batches):
    found = []
    for flag in (False, True):
        config = QConfig.best(cross_layer_equalization=flag)
        qmod = quantize(net(two), config, iter(batches), compile_fn=stock)
        constants = [n for n in read_graph(qmod).nodes if n.op == "dequantize" and not n.inputs]
        found.append([n.constants[0].value.numpy() for n in constants])
    assert not np.array_equal(found[0][1], found[1][1])


def test_a_tensor_that_two_layers_read_is_left_alone(net):
    def forked(layers, x):
        y = layers.relu(layers.conv(x, "c0"), "r0")
        return layers.add(layers.conv(y, "c1"), layers.conv(y, "c2"), "sum")

    assert find_pairs(annotate(prepare(net(forked))).graph) == []
