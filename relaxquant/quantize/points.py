"""Where a quantized network is compared with its fp32 original.

A point is a tensor of the original whose value leaves a kernel of the quantized network: a
quantized tensor, the end of a layer's chain, a result. Between two points everything is one kernel.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np
from tvm import IRModule

from ..parts import joined
from .chains import Chain, find_chains
from .checks import QuantizeError
from .graph import RESULT, Graph, Node, prepare, read_graph
from .operators import LAYERS, VALUE_PRESERVING


@dataclass(frozen=True)
class Codes:
    """The integers of a quantized tensor, as its QDQ pair has them.

    Parameters
    ----------
    scale : numpy.ndarray
        float64, scalar or one for each index of ``axis``, shaped to broadcast over the tensor.
    zero_point, lowest, highest : int
        The integer that stands for 0, and the ends of those used.
    """

    scale: np.ndarray
    zero_point: int
    lowest: int
    highest: int

    @property
    def bits(self) -> int:
        """Bits that hold them."""
        return int(np.ceil(np.log2(self.highest - self.lowest + 1)))

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest value; of several scales the largest one's."""
        scale = float(self.scale.max())
        return (self.lowest - self.zero_point) * scale, (self.highest - self.zero_point) * scale

    def of(self, values: np.ndarray) -> np.ndarray:
        """The integers that stand for dequantized `values`; float64, same shape."""
        return np.rint(values / self.scale) + self.zero_point


@dataclass(frozen=True)
class Point:
    """A tensor to compare.

    Parameters
    ----------
    name : str
        Its name in both modules.
    op : str
        What computes it in the original: for the end of a chain the layer, else the operator.
    exact : Node
        In the original.
    quantized : Node
        In the quantized module, before any rounding of its own.
    read : Node
        In the quantized module, as its readers get it: rounded, if it is a quantized tensor.
    codes : Codes or None
        None for a float tensor.
    """

    name: str
    op: str
    exact: Node = field(repr=False)
    quantized: Node = field(repr=False)
    read: Node = field(repr=False)
    codes: Codes | None = None


@dataclass(frozen=True)
class Pair:
    """A network and what was quantized of it.

    Parameters
    ----------
    mod, qmod : IRModule
        The cleaned original, and QDQ Relax.
    graph, qgraph : Graph
        Of both.
    points : tuple of Point
        In the order of the original.
    weights : dict of str to (numpy.ndarray, Node)
        Of each layer with quantized weights, by name: the original's weights, and what dequantizes
        the quantized ones.
    chains : tuple of Chain
        Of these layers.
    """

    mod: IRModule
    qmod: IRModule
    graph: Graph = field(repr=False)
    qgraph: Graph = field(repr=False)
    points: tuple[Point, ...]
    weights: dict[str, tuple[np.ndarray, Node]] = field(repr=False)
    chains: tuple[Chain, ...] = field(repr=False)


def match(mod: IRModule, qmod: IRModule) -> Pair:
    """Find the points of two modules.

    Raises
    ------
    QuantizeError
        If `qmod` is not quantized, or not from `mod`.
    """
    mod = prepare(mod)
    qmod = joined(qmod)
    graph, qgraph = read_graph(mod), read_graph(qmod)
    _check_quantized(qgraph)
    theirs = {node.name: node for node in qgraph.nodes}
    for node in graph.nodes:
        other = theirs.get(node.name)
        if other is None or other.op != node.op or _shape(other) != _shape(node):
            found = "is not there" if other is None else f"is a {other.op} of {_shape(other)}"
            raise QuantizeError(
                f"the quantized module was not made from this one: '{node.name}', a {node.op} of "
                f"{_shape(node)}, {found} in it"
            )
    mine = {node.name: node for node in graph.nodes}
    weights = _weights(qgraph, mine)
    reads = _pairs(qgraph, graph, mine)
    chains = _layer_chains(graph, weights)
    ends = {graph.nodes[chain.end].name: graph.nodes[chain.root].op for chain in chains}
    names = set(reads) | set(ends) | {graph.nodes[i].name for i in _results(graph)}
    points = []
    for node in graph.nodes:
        if node.name in names:
            read, codes = reads.get(node.name, (theirs[node.name], None))
            op = ends.get(node.name, node.op)
            points.append(Point(node.name, op, node, theirs[node.name], read, codes))
    quantized = tuple(c for c in chains if graph.nodes[c.root].name in weights)
    return Pair(mod, qmod, graph, qgraph, tuple(points), weights, quantized)


def _check_quantized(qgraph: Graph) -> None:
    if not any(node.op == "dequantize" for node in qgraph.nodes):
        raise QuantizeError(
            "the second module holds no quantize and dequantize: give what relaxquant.quantize "
            "returns, with do_simulation=False and partition_conversions='disabled'"
        )


def _weights(qgraph: Graph, mine: dict[str, Node]) -> dict[str, tuple[np.ndarray, Node]]:
    found = {}
    for node in qgraph.nodes:
        if node.op in LAYERS and node.name in mine:
            constants = mine[node.name].constants
            for index in node.inputs[1:2]:
                if qgraph.nodes[index].op == "dequantize" and constants:
                    found[node.name] = (constants[0].value.numpy(), qgraph.nodes[index])
    return found


def _pairs(qgraph: Graph, graph: Graph, mine: dict[str, Node]) -> dict[str, tuple[Node, Codes]]:
    """{tensor: (its dequantize node, its integers)}; between the two are clips and rounding."""
    found = {}
    for node in qgraph.nodes:
        if node.op != "dequantize" or not node.inputs:
            continue
        quantize = source = qgraph.nodes[node.inputs[0]]
        clip = None
        while source.name not in mine and source.inputs:
            clip = source if source.op == "clip" else clip
            source = qgraph.nodes[source.inputs[0]]
        if quantize.op == "quantize" and source.name in mine:
            codes = codes_of(quantize, clip)
            if source.op in VALUE_PRESERVING:  # it needs no clip to have no other integers
                before = found.get(graph.nodes[mine[source.name].inputs[0]].name)
                codes = before[1] if before else codes
            found[source.name] = (node, codes)
    return found


def codes_of(quantize: Node, clip: Node | None = None) -> Codes:
    """The integers that a ``R.quantize`` gives, of those of its type the ones a clip leaves."""
    low, high = -np.inf, np.inf
    if clip is not None:
        low, high = (float(arg.value) for arg in clip.value.args[1:3])
    scale, zero_point = (arg.value.numpy() for arg in quantize.value.args[1:3])
    zero_point = int(zero_point.flat[0])
    info = np.iinfo(str(quantize.attrs["out_dtype"]))
    largest = float(scale.max())
    if scale.ndim:
        shape = [1] * len(quantize.shape)
        shape[int(quantize.attrs["axis"])] = -1
        scale = scale.reshape(shape)
    lowest = max(info.min, _nearest(low / largest + zero_point))
    highest = min(info.max, _nearest(high / largest + zero_point))
    return Codes(scale.astype(np.float64), zero_point, int(lowest), int(highest))


def _nearest(value: float) -> float:
    return value if np.isinf(value) else float(np.rint(value))


def _layer_chains(graph: Graph, quantized: Container[str]) -> list[Chain]:
    """Chains of all layers, those that stay float too."""
    roots = {node.index for node in graph.nodes if node.name in quantized}
    return [c for c in find_chains(graph, roots) if graph.nodes[c.root].op in LAYERS]


def _results(graph: Graph) -> list[int]:
    return [node.index for node in graph.nodes if RESULT in graph.consumers[node.index]]


def _shape(node: Node) -> str:
    return "unknown shape" if node.shape is None else "x".join(map(str, node.shape))
