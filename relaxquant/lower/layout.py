"""Layouts: every feature map in one of two, conversions only where a neighbour needs another form.

NCHW16c, or NHWC where an NHWC schedule is asked for. Both are blocked layouts (see `TensorSpec`):
NHWC has one block that holds all channels, so the two differ here in the size of a block.
"""

from __future__ import annotations

from ..kernels.image_nchw_spatial_pack import halo
from ..kernels.spec import NCHW16C, NHWC
from ..kernels.tir import BLOCK, ceildiv
from .graph import Graph, Node, Value

QUAD = 4  # channels of one int8 dot product
TAKE_ANY = ("quantize", "clip", "cast", "load", "store")  # their kernel reads every layout


def assign(graph: Graph, layout: str = NCHW16C, halos: bool = True) -> None:
    """Choose the block of every value and insert the conversions that follow, in place.

    The network's inputs and outputs, and what stays with TVM, are floats in plain NCHW. Everything
    else is in ``layout``, so that two layers that agree have nothing between them. An image of up
    to four channels goes into the first convolution of integers or of float16 padded to four
    channels, or with its border around it where that saves work, and into one of float32 as it is.

    Parameters
    ----------
    graph : Graph
        The network, fused.
    layout : str
        ``"NCHW16c"`` or ``"NHWC"``.
    halos : bool
        Whether there is a kernel for images with a border around them.
    """
    blocks = _Blocks(layout, halos)
    users = graph.users()
    for node in graph.nodes:
        node.output.block = blocks.of_output(node, users.get(node.output, []))
        node.output.nhwc = layout == NHWC
    inserter = _Inserter(layout)
    for node in graph.nodes:
        if node.op == "conv2d":
            node.reason = node.why_float  # before its data are made float
        node.inputs = [
            inserter.meet(value, blocks.requirement(node, index, value))
            for index, value in enumerate(node.inputs)
        ]
        _settle_precision(node)
        inserter.nodes.append(node)
    graph.outputs = [
        inserter.meet(value, (value.float_dtype, 1) if value.is_feature_map else None)
        for value in graph.outputs
    ]
    graph.nodes = inserter.nodes


def stays_with_tvm(node: Node) -> bool:
    """Whether the node is a Relax call that TVM compiles in float."""
    return node.op in ("tvm", "flatten")


class _Blocks:
    """The block in which a layer gives its output, and needs its inputs, in one layout."""

    def __init__(self, layout: str, halos: bool):
        self.layout, self.halos = layout, halos

    def of_output(self, node: Node, readers: list[Node | None]) -> int:
        """Block of the node's output, for those who read it."""
        if stays_with_tvm(node) or not node.output.is_feature_map or node.op == "store":
            return 1
        makes_pixels = node.op in ("quantize", "clip", "load") and node.output.is_quantized
        makes_pixels = makes_pixels or node.op == "cast"
        if makes_pixels and node.output.shape[1] <= QUAD and all(map(_takes_quads, readers)):
            if self.halos and self.layout == NCHW16C and node.output.dtype == "uint8":
                node.output.halo = _common_halo(node.output, readers)
            return node.output.shape[1] if node.output.halo else QUAD
        return self._whole(node.output)

    def requirement(self, node: Node, index: int, value: Value) -> tuple[str, int] | None:
        """dtype and block in which ``node`` must get its input ``index``; None for any."""
        if not value.is_feature_map or node.op in TAKE_ANY:
            return None
        if stays_with_tvm(node):
            return value.float_dtype, 1
        if node.op == "conv2d" and index == 0:
            dtype = value.dtype if node.integer else value.float_dtype
            return dtype, self._of_conv(node, value)
        return value.dtype, self._whole(value)

    def _of_conv(self, node: Node, value: Value) -> int:
        if value.halo or value.block == QUAD:
            return value.block
        if node.integer or value.dtype == "float16":
            return self._whole(value)
        plain_image = value.block == 1 and value.shape[1] < BLOCK and len(value.shape) == 4
        plain_image = plain_image and not value.channels_last
        return 1 if plain_image and node.groups == 1 else self._whole(value)

    def _whole(self, value: Value) -> int:
        return BLOCK if self.layout == NCHW16C else ceildiv(value.shape[1], BLOCK) * BLOCK


def _takes_quads(reader: Node | None) -> bool:
    if reader is None or reader.op != "conv2d" or reader.groups > 1:
        return False
    return reader.integer or reader.inputs[0].dtype == "float16"


def _common_halo(image: Value, readers: list[Node]) -> tuple[int, int, int, int] | None:
    """The halo that serves all readers of an image, if there is one."""
    halos = {halo(image.spec, reader.window) for reader in readers}
    return halos.pop() if len(halos) == 1 else None


def _settle_precision(node: Node) -> None:
    """What TVM computes is of floats, whatever the reader assumed of a reshape."""
    if stays_with_tvm(node) and node.output.is_quantized:
        node.output.dtype, node.output.scale, node.output.zero_point = "float32", 1.0, 0


class _Inserter:
    """Collects nodes, adding each conversion once."""

    def __init__(self, layout: str):
        self.nhwc = layout == NHWC
        self.nodes: list[Node] = []
        self.converted: dict[tuple, Value] = {}

    def meet(self, value: Value, wanted: tuple[str, int] | None) -> Value:
        """``value`` in the dtype and block asked for, converted if it is not already so."""
        if wanted is None or ((value.dtype, value.block) == wanted and not value.channels_last):
            return value
        dtype, block = wanted
        key = (value, dtype, block)
        if key not in self.converted:
            self.converted[key] = self._convert(value, dtype, block)
        return self.converted[key]

    def _convert(self, value: Value, dtype: str, block: int) -> Value:
        assert dtype in ("float32", value.dtype), "only quantize makes integers"
        name = f"{value.name}_{dtype}_{block}"
        output = Value(name, value.shape, dtype, block=block, nhwc=self.nhwc)
        if dtype == value.dtype:
            output.scale, output.zero_point = value.scale, value.zero_point
            output.largest = value.largest
        self.nodes.append(Node("convert", [value], output, label=value.name))
        return output
