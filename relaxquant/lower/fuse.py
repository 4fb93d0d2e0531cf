"""Fusion of what follows a layer into the layer: bias, residual, activation, quantization."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .graph import Graph, Node, Value

# Operators whose kernels clip and quantize what they store.
WITH_EPILOGUE = ("conv2d", "add", "mul", "avg_pool2d", "softmax", "concat", "clip")


def fuse(graph: Graph) -> None:
    """Fuse epilogues in place, until nothing changes.

    A layer takes in the only reader of its output if the epilogue's fixed order allows: a narrower
    sum, then bias, then residual, then clip, then quantize. The fused layer moves down to the
    reader's place, where the residual is known to exist.
    """
    _pad_in_convolutions(graph)
    while _fuse_one(graph):
        pass
    for node in graph.nodes:
        if node.op == "quantize":
            _read_callers_form(node, graph)
    for node in graph.nodes:
        if node.op == "bias_add":
            _leave_bias_to_add(node)
    graph.nodes = [
        part for node in graph.nodes for part in (node.calls if node.op == "narrow" else (node,))
    ]


def _pad_in_convolutions(graph: Graph) -> None:
    """Have convolutions pad what comes padded with zeros."""
    defined_by = _defined_by(graph)
    for node in graph.nodes:
        pad = defined_by.get(node.inputs[0]) if node.op == "conv2d" else None
        if pad is not None and pad.op == "pad":
            sides = zip(node.window.padding, pad.window.padding, strict=True)
            node.window = replace(node.window, padding=tuple(a + b for a, b in sides))
            node.inputs[0] = pad.inputs[0]
    graph.drop_dead()


def _read_callers_form(quantize: Node, graph: Graph) -> None:
    """Quantize integers of the caller anew without loading them first."""
    producer = _defined_by(graph).get(quantize.inputs[0])
    if producer is not None and producer.op == "load":
        quantize.inputs = list(producer.inputs)


def _defined_by(graph: Graph) -> dict[Value, Node]:
    return {node.output: node for node in graph.nodes}


def _fuse_one(graph: Graph) -> bool:
    users = graph.users()
    defined_by = _defined_by(graph)
    for node in graph.nodes:
        readers = users.get(node.output, [])
        reader = readers[0] if len(readers) == 1 else None
        if reader is None or node.op not in WITH_EPILOGUE:
            continue
        if _absorb(node, reader, graph, defined_by, users):
            node.output = reader.output
            graph.nodes.remove(node)
            graph.nodes[graph.nodes.index(reader)] = node
            return True
    return False


def _absorb(node: Node, reader: Node, graph: Graph, defined_by: dict, users: dict) -> bool:
    """Take ``reader`` into ``node`` if allowed; says whether it was."""
    quantized = node.output.is_quantized
    if reader.op == "narrow":
        return _absorb_narrow(node, reader)
    if reader.op == "bias_add" and node.op == "conv2d":
        if node.clip is not None or len(node.inputs) > 1 or quantized:
            return False
        bias = _bias_of(node, reader)
        node.bias = bias if node.bias is None else node.bias + bias
        return True
    if reader.op == "add" and node.op == "conv2d":
        return _absorb_residual(node, reader, graph, defined_by, users)
    if reader.op == "clip" and not quantized:
        node.clip = _both(node.clip, reader.clip)
        return True
    return reader.op in ("quantize", "cast") and not quantized


def _bias_of(conv: Node, bias_add: Node) -> np.ndarray:
    """The bias; of integers in the layer's own steps exactly those integers, whatever their size.

    Their scale is written as one float32, and the product of the layer's two is not.
    """
    if bias_add.integer_bias is None or not conv.integer:
        return bias_add.bias
    steps, scale = bias_add.integer_bias
    unit = conv.inputs[0].scale * conv.weight.scale
    return steps * unit if np.allclose(scale, unit, rtol=1e-5, atol=0) else bias_add.bias


def _absorb_narrow(node: Node, narrow: Node) -> bool:
    """Fewer bits for the sum of an integer convolution, if they count its own steps."""
    bare = node.bias is None and node.clip is None and len(node.inputs) == 1 and not node.narrow
    if node.op != "conv2d" or not bare or not node.integer or node.output.is_quantized:
        return False
    steps = node.inputs[0].scale * node.weight.scale
    if steps.shape != narrow.steps.shape or not np.allclose(steps, narrow.steps, rtol=1e-6, atol=0):
        return False
    node.narrow = narrow.narrow
    return True


def _absorb_residual(node: Node, add: Node, graph: Graph, defined_by: dict, users: dict) -> bool:
    if node.clip is not None or len(node.inputs) > 1 or node.output.is_quantized:
        return False
    other = add.inputs[1] if add.inputs[0] is node.output else add.inputs[0]
    if other is node.output or not _same_shape(node.output, other):
        return False
    rival = defined_by.get(other)
    if rival is not None and _could_fuse(rival, users) and _follows(graph, rival, node):
        return False  # the later of two convolutions takes the add, as annotation expects
    node.inputs = [node.inputs[0], other]
    return True


def _could_fuse(rival: Node, users: dict) -> bool:
    plain = rival.clip is None and len(rival.inputs) == 1 and not rival.output.is_quantized
    return rival.op == "conv2d" and plain and len(users[rival.output]) == 1


def _follows(graph: Graph, later: Node, earlier: Node) -> bool:
    return graph.nodes.index(later) > graph.nodes.index(earlier)


def _same_shape(a: Value, b: Value) -> bool:
    return a.shape == b.shape and b.is_feature_map


def _both(first: tuple[float, float] | None, second: tuple[float, float]) -> tuple[float, float]:
    if first is None:
        return second
    return (min(max(first[0], second[0]), second[1]), max(min(first[1], second[1]), second[0]))


def _leave_bias_to_add(node: Node) -> None:
    """A bias that no convolution took stays with TVM."""
    node.op, node.reason = "tvm", "constant add that follows no convolution"
