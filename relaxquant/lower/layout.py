"""Layouts: every feature map in NCHW16c, conversions only where a neighbour needs another form."""

from __future__ import annotations

from ..kernels.tir import BLOCK
from .graph import Graph, Node, Value

QUAD = 4  # channels of one int8 dot product


def assign(graph: Graph) -> None:
    """Choose the block of every value and insert the conversions that follow, in place.

    The network's inputs and outputs, and what stays with TVM, are float32 in plain NCHW. Everything
    else is NCHW16c, so that two layers that agree have nothing between them. An image of up to four
    channels goes into the first integer convolution as NCHW4c, and into a float one as it is.
    """
    users = graph.users()
    for node in graph.nodes:
        node.output.block = _output_block(node, users.get(node.output, []))
    inserter = _Inserter()
    for node in graph.nodes:
        node.inputs = [
            inserter.meet(value, *_requirement(node, index, value))
            for index, value in enumerate(node.inputs)
        ]
        _settle_precision(node)
        inserter.nodes.append(node)
    graph.outputs = [
        inserter.meet(value, "float32", 1) if value.is_feature_map else value
        for value in graph.outputs
    ]
    graph.nodes = inserter.nodes


def stays_with_tvm(node: Node) -> bool:
    """Whether the node is a Relax call that TVM compiles in float."""
    return node.op in ("tvm", "flatten")


def _output_block(node: Node, readers: list[Node | None]) -> int:
    if stays_with_tvm(node) or not node.output.is_feature_map:
        return 1
    quantizes = node.op in ("quantize", "clip") and node.output.dtype == "uint8"
    if quantizes and node.output.shape[1] <= QUAD and all(map(_takes_quads, readers)):
        return QUAD
    return BLOCK


def _takes_quads(reader: Node | None) -> bool:
    return reader is not None and reader.op == "conv2d" and reader.integer and reader.groups == 1


def _requirement(node: Node, index: int, value: Value) -> tuple[str, int]:
    """dtype and block in which ``node`` must get its input ``index``."""
    if not value.is_feature_map or node.op in ("quantize", "clip"):
        return value.dtype, value.block
    if stays_with_tvm(node):
        return "float32", 1
    if node.op == "conv2d" and index == 0:
        dtype = "uint8" if node.integer else "float32"
        return dtype, _conv_block(node, value)
    return value.dtype, BLOCK


def _conv_block(node: Node, value: Value) -> int:
    if node.integer:
        return QUAD if value.block == QUAD else BLOCK
    plain_image = value.block == 1 and value.shape[1] < BLOCK and len(value.shape) == 4
    return 1 if plain_image and node.groups == 1 else BLOCK


def _settle_precision(node: Node) -> None:
    """What TVM computes is float32, whatever the reader assumed of a reshape."""
    if stays_with_tvm(node) and node.output.dtype == "uint8":
        node.output.dtype, node.output.scale, node.output.zero_point = "float32", 1.0, 0


class _Inserter:
    """Collects nodes, adding each conversion once."""

    def __init__(self):
        self.nodes: list[Node] = []
        self.converted: dict[tuple, Value] = {}

    def meet(self, value: Value, dtype: str, block: int) -> Value:
        """``value`` in the dtype and block asked for, converted if it is not already so."""
        if (value.dtype, value.block) == (dtype, block):
            return value
        key = (value, dtype, block)
        if key not in self.converted:
            self.converted[key] = self._convert(value, dtype, block)
        return self.converted[key]

    def _convert(self, value: Value, dtype: str, block: int) -> Value:
        assert dtype in ("float32", value.dtype), "only quantize makes uint8"
        output = Value(f"{value.name}_{dtype}_{block}", value.shape, dtype, block=block)
        if dtype == value.dtype:
            output.scale, output.zero_point = value.scale, value.zero_point
        self.nodes.append(Node("convert", [value], output, label=value.name))
        return output
