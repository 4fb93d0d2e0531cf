"""Step 1, annotate: which tensors are quantized, and why the others are not.

The rules follow what integer kernels can fuse. A layer's data and weights are 8-bit; its chain
(bias, residual, activation) ends in one rounding; operators between two quantized layers stay in 8
bits; what leads to no quantized layer, and the function's result, stays float.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tvm import IRModule

from .chains import Chain, find_chains
from .config import QConfig, QuantizeError
from .graph import Graph, Node, read_graph
from .operators import (
    LAYERS,
    VALUE_PRESERVING,
    eight_bit_refusal,
    layer_refusal,
    non_negative,
)


@dataclass(frozen=True)
class QTensor:
    """A tensor that gets one quantize/dequantize pair.

    Parameters
    ----------
    node : int
        Its node.
    name : str
        Its name in the module.
    dtype : str
        ``"uint8"`` if it is provably non-negative, else ``"int8"``; zero point 0 in both.
    shares : int
        The node whose scale it has: itself, or the one whose values it only chooses or moves.
    """

    node: int
    name: str
    dtype: str
    shares: int

    @property
    def is_calibrated(self) -> bool:
        """Whether it has a scale of its own."""
        return self.shares == self.node


@dataclass(frozen=True)
class KeptFloat:
    """An operator that stays in float, and the reason."""

    name: str
    op: str
    reason: str


@dataclass(frozen=True)
class Annotation:
    """What `annotate` decided.

    Parameters
    ----------
    tensors : dict of int to QTensor
        Quantized activations by node, in program order.
    layers : dict of int to Chain
        Quantized conv2d and matmul nodes, each with its chain.
    kept_float : tuple of KeptFloat
        Operators that stay in float; chains are named by their root.
    graph : Graph
        The network that was annotated.
    """

    tensors: dict[int, QTensor]
    layers: dict[int, Chain]
    kept_float: tuple[KeptFloat, ...]
    graph: Graph = field(repr=False)


def annotate(mod: IRModule, config: QConfig | None = None) -> Annotation:
    """Decide which tensors of a fp32 network are quantized.

    Parameters
    ----------
    mod : IRModule
        fp32 Relax with one function ``main`` of one dataflow block, clean as
        `relaxquant.frontends` leaves it.
    config : QConfig, optional
        `skip_conv_layers` and `skip_dense_layer` act here.

    Returns
    -------
    Annotation
        Tensors, layers and reasons.

    Raises
    ------
    QuantizeError
        If `skip_conv_layers` names a convolution that is not there.

    Notes
    -----
    Takes the place of TVM's ``src/relay/quantize/annotate.cc`` (Relay, removed), with QDQ pairs in
    place of ``simulated_quantize``.
    """
    config = config or QConfig.best()
    graph = read_graph(mod)
    refused = _refused_layers(graph, config)
    quantized = {n.index for n in graph.nodes if n.op in LAYERS and n.index not in refused}
    chains = find_chains(graph, quantized)
    refused.update(_refused_operators(graph, chains))
    wanted = _wanted(graph, chains, quantized, refused)
    layers = {chain.root: chain for chain in chains if chain.root in quantized}
    kept = _kept_float(graph, chains, refused, wanted)
    return Annotation(_tensors(graph, wanted), layers, kept, graph)


def _refused_layers(graph: Graph, config: QConfig) -> dict[int, str]:
    """Layers that stay float, with the reason."""
    convs = [node.index for node in graph.nodes if node.op == "nn.conv2d"]
    for index in config.skip_conv_layers:
        if index >= len(convs):
            raise QuantizeError(
                f"QConfig.skip_conv_layers names convolution {index}, but the network has "
                f"{len(convs)}, counted from 0"
            )
    skipped = {convs[index] for index in config.skip_conv_layers}
    refused = {}
    for node in graph.nodes:
        if node.op in LAYERS:
            reason = layer_refusal(node)
            if node.index in skipped:
                reason = f"skip_conv_layers holds {convs.index(node.index)}"
            elif node.op == "matmul" and config.skip_dense_layer:
                reason = reason or "skip_dense_layer"
            if reason:
                refused[node.index] = reason
    return refused


def _refused_operators(graph: Graph, chains: list[Chain]) -> dict[int, str]:
    """Operators outside chains that have no 8-bit form, with the reason."""
    inside = {index for chain in chains for index in chain.members}
    outside = [node for node in graph.nodes if node.index not in inside and node.op != "input"]
    reasons = {node.index: eight_bit_refusal(node, graph) for node in outside}
    return {index: reason for index, reason in reasons.items() if reason}


def _wanted(graph: Graph, chains: list[Chain], quantized: set[int], refused: dict) -> set[int]:
    """Nodes whose value some integer kernel reads in 8 bits.

    Readers come after what they read, so one walk from the end sees every reader first.
    """
    chain_of = {index: chain for chain in chains for index in chain.members}
    wanted: set[int] = set()
    for node in reversed(graph.nodes):
        chain = chain_of.get(node.index)
        if chain is not None:
            wanted.update(_read_by_member(node, chain, quantized, wanted))
        elif node.index in wanted and node.index not in refused:
            wanted.update(node.inputs)
    return wanted


def _read_by_member(node: Node, chain: Chain, quantized: set[int], wanted: set[int]) -> list[int]:
    """What a member of a chain reads in 8 bits from outside the chain."""
    if chain.root in quantized:
        return [index for index in node.inputs if index not in chain.members]
    is_free_add = chain.root == node.index and node.op == "add"
    return list(node.inputs) if is_free_add and chain.end in wanted else []


def _tensors(graph: Graph, wanted: set[int]) -> dict[int, QTensor]:
    unsigned = non_negative(graph)
    tensors: dict[int, QTensor] = {}
    for index in sorted(wanted):
        node = graph.nodes[index]
        shares = index
        if node.op in VALUE_PRESERVING and node.inputs[:1] and node.inputs[0] in tensors:
            shares = tensors[node.inputs[0]].shares
        dtype = "uint8" if index in unsigned else "int8"
        tensors[index] = QTensor(index, node.name, dtype, shares)
    return tensors


def _kept_float(
    graph: Graph, chains: list[Chain], refused: dict[int, str], wanted: set[int]
) -> tuple[KeptFloat, ...]:
    """Refused nodes, and 8-bit operators that no quantized layer reads."""
    inside = {index for chain in chains for index in chain.members if index != chain.root}
    end_of = {chain.root: chain.end for chain in chains}
    kept = []
    for node in graph.nodes:
        if node.op == "input" or node.index in inside:
            continue
        reason = refused.get(node.index)
        if reason is None and node.op not in LAYERS:
            leads_on = end_of.get(node.index, node.index) in wanted
            reason = None if leads_on else "no quantized layer reads it"
        if reason:
            kept.append(KeptFloat(node.name, node.op, reason))
    return tuple(kept)
