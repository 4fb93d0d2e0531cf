"""A network of 1x1 convolutions, and the same in NumPy from the constants of its modules."""

from __future__ import annotations

import numpy as np

from relaxquant.quantize.graph import prepare, read_graph

LAYERS = (("r0", "c0", "x"), ("r1", "c1", "r0"), ("out", "out", "r1"))
"""(tensor, layer that computes it, tensor that this reads), in order."""


def pointwise(layers, x):
    """Three 1x1 convolutions, which NumPy computes in a line, and ReLUs."""
    y = layers.relu(layers.conv(x, "c0", kernel=1, bias=False), "r0")
    y = layers.relu(layers.conv(y, "c1", kernel=1, bias=False), "r1")
    return layers.conv(y, "c2", channels=4, kernel=1, bias=False)


def conv(x, weight):
    return np.einsum("nchw,oc->nohw", x, weight[:, :, 0, 0])


def relu(x):
    return np.maximum(x, 0)


def ratio(exact, value):
    return 10 * np.log10(np.sum(exact**2) / np.sum((exact - value) ** 2))


def operands(qmod):
    """{tensor: (scale, zero point, lowest, highest)} and {layer: dequantized weights}."""
    graph, data, weights = read_graph(qmod), {}, {}
    for node in graph.nodes:
        if node.op != "dequantize":
            continue
        scale, zero = (arg.value.numpy() for arg in node.value.args[1:3])
        if node.inputs:
            info = np.iinfo(str(graph.nodes[node.inputs[0]].attrs["out_dtype"]))
            data[node.name.removesuffix("_dq")] = (float(scale), int(zero), info.min, info.max)
        else:
            codes = node.constants[0].value.numpy()
            weights[node.name.removesuffix("_weight")] = codes * scale[:, None, None, None]
    return data, weights


def rounded(x, scale, zero, low, high):
    return (np.clip(np.rint(x / scale) + zero, low, high) - zero) * scale


def float_weights(mod):
    """{layer: weights} of the fp32 module."""
    nodes = read_graph(prepare(mod)).nodes
    return {node.name: node.constants[0].value.numpy() for node in nodes if node.constants}


def exact_values(weights, x):
    """Every tensor in float."""
    values = {"x": x.astype(np.float64)}
    for name, layer, before in LAYERS:
        y = conv(values[before], weights[layer])
        values[name] = y if name == "out" else relu(y)
    return values
