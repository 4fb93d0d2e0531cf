"""What holds for the QDQ form of any network, on random ones."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import relax
from tvm.relax import op as R

from relaxquant.quantize import QConfig
from relaxquant.quantize.graph import prepare, read_graph, rebuild
from relaxquant.quantize.pipeline import quantize
from relaxquant.quantize.summary import summary

STEPS = ("conv", "relu", "clip", "add", "concat", "max", "avg", "sigmoid", "depthwise")


@st.composite
def programs(draw, longest=12):
    """Random programs: each step is an operator and one or two earlier tensors to read."""
    steps = draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=longest))
    return [(op, *(draw(st.integers(0, i)) for _ in range(2))) for i, op in enumerate(steps)]


def interpret(program):
    """A body that emits a program; all tensors are (1, 4, 6, 6)."""

    def body(layers, x):
        values = [x]
        for i, (op, first, second) in enumerate(program):
            values.append(step(layers, op, values[first], values[second], f"t{i}"))
        return layers.head(values[-1])

    return body


def step(layers, op, a, b, name):
    pool = {"pool_size": (3, 3), "strides": (1, 1), "padding": (1, 1, 1, 1)}
    if op == "conv":
        return layers.conv(a, name, 4)
    if op == "depthwise":
        return layers.conv(a, name, 4, groups=4, bias=False)
    if op == "concat":
        halves = layers.emit(R.concat([a, b], axis=1), name)
        return layers.conv(halves, f"{name}_mix", 4, kernel=1)
    calls = {
        "relu": lambda: R.nn.relu(a),
        "clip": lambda: R.clip(a, -1, 4),
        "add": lambda: R.add(a, b),
        "max": lambda: R.nn.max_pool2d(a, **pool),
        "avg": lambda: R.nn.avg_pool2d(a, **pool),
        "sigmoid": lambda: R.sigmoid(a),
    }
    return layers.emit(calls[op](), name)


def is_pair(graph, index):
    node = graph.nodes[index]
    return node.op == "dequantize" and graph.nodes[node.inputs[0]].op == "quantize"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(program=programs())
def test_invariants_of_any_network(net, program):
    mod = net(interpret(program), shape=(1, 4, 6, 6))
    qmod = quantize(mod, QConfig.best(calibrate_mode="global_scale"))
    graph = read_graph(qmod)
    sources = [node.inputs[0] for node in graph.nodes if node.op == "quantize"]
    assert len(sources) == len(set(sources))  # one pair for each tensor
    for node in graph.nodes:
        if node.op in ("nn.conv2d", "matmul"):
            data, weight = node.inputs
            assert is_pair(graph, data)
            assert graph.nodes[weight].op == "dequantize" and not graph.nodes[weight].inputs
        if node.op == "quantize":
            assert is_read_by_an_integer_kernel(graph, node)
    # Without the pairs it is the network that was given.
    plain = [n.op for n in graph.nodes if n.op not in ("quantize", "dequantize")]
    assert plain == [n.op for n in read_graph(prepare(mod)).nodes]
    assert graph.nodes[graph.index_of[graph.result]].op == "add"


def is_read_by_an_integer_kernel(graph, quantize_node):
    """No pair is there for float readers alone."""
    (dequantized,) = graph.consumers[quantize_node.index]
    readers = [graph.nodes[i] for i in graph.consumers[dequantized] if i >= 0]
    return any(reader.op != "sigmoid" for reader in readers)


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(program=programs(longest=6), seed=st.integers(0, 99))
def test_any_network_runs_and_unsigned_tensors_are_not_negative(net, stock, program, seed):
    mod = prepare(net(interpret(program), shape=(1, 4, 6, 6), seed=seed))
    x = np.random.default_rng(seed).normal(size=(1, 4, 6, 6)).astype("float32")
    qmod = quantize(mod, QConfig.best(asymmetric=False), [x], compile_fn=stock)
    unsigned = {row.tensor for row in summary(qmod) if row.dtype == "uint8"}
    graph = read_graph(mod)
    nodes = [n for n in graph.nodes if n.name in unsigned]
    exact, ours = stock(mod)(x)[0], stock(qmod)(x)[0]
    assert np.isfinite(ours).all() and np.abs(ours - exact).max() < 0.2 * np.abs(exact).max() + 0.05
    if nodes:
        values = stock(returning(mod, nodes))(x)
        assert all(value.min() >= 0 for value in values)


def returning(mod, nodes):
    """`mod` with the values of `nodes` as its result."""
    result = relax.Tuple([node.var for node in nodes])
    return rebuild(mod, read_graph(mod), result=result)
