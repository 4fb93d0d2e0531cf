"""Step 1, annotate: which tensors are quantized, and why the others are not.

The rules follow what integer kernels can fuse. A layer's data and weights are 8-bit; its chain
(bias, residual, activation) ends in one rounding; operators between two quantized layers stay in 8
bits; what leads to no quantized layer, and the function's result, stays float.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from tvm import IRModule

from ..errors import did_you_mean
from .chains import Chain, find_chains
from .config import QConfig, QuantizeError
from .graph import Graph, Node, read_graph
from .operators import (
    EIGHT_BIT,
    LAYERS,
    VALUE_PRESERVING,
    eight_bit_refusal,
    layer_refusal,
    non_negative,
)
from .scales import Range

RELAY_NAMES = {"nn.dense": "matmul", "concatenate": "concat"}
"""Operators that relay.quantize knew under another name, for `QConfig.debug_enabled_ops`."""


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
        Type that stores it: ``"uint8"``, ``"int8"`` or ``"int16"``. Fewer bits than 8 are uint8,
        unless they meet weights of more than 8.
    shares : int
        The node whose scale it has: itself, or the one whose values it only chooses or moves.
    nbit : int
        Bits used.
    signed : bool
        Whether it needs integers below its zero point: it can be negative, or its type is int8.
    """

    node: int
    name: str
    dtype: str
    shares: int
    nbit: int = 8
    signed: bool = False

    @property
    def is_calibrated(self) -> bool:
        """Whether it has a scale of its own."""
        return self.shares == self.node

    def range_up_to(self, threshold: float) -> Range:
        """The range of values up to a threshold: from 0, or on both sides of it."""
        return Range(-threshold if self.signed else 0.0, threshold)


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

    def bias_of(self, layer: int) -> np.ndarray:
        """The bias of a quantized layer, flat float32; a single 0 without one."""
        bias = self.layers[layer].bias
        if bias is None:
            return np.zeros(1, np.float32)
        return self.graph.nodes[bias].constants[0].value.numpy().reshape(-1)


def annotate(mod: IRModule, config: QConfig | None = None) -> Annotation:
    """Decide which tensors of a fp32 network are quantized.

    Parameters
    ----------
    mod : IRModule
        fp32 Relax with one function ``main`` of one dataflow block, clean as
        `relaxquant.frontends` leaves it.
    config : QConfig, optional
        `skip_conv_layers`, `skip_dense_layer`, `debug_enabled_ops`, `nbit_input`, `dtype_input`,
        `asymmetric` and `layer_bits` act here; `QConfig.best` by default.

    Returns
    -------
    Annotation
        Tensors, layers and reasons.

    Raises
    ------
    QuantizeError
        If `skip_conv_layers` or `layer_bits` name a layer that is not there, or
        `debug_enabled_ops` an operator that is never quantized.

    Notes
    -----
    Takes the place of TVM's ``src/relay/quantize/annotate.cc`` (Relay, removed), with QDQ pairs in
    place of ``simulated_quantize``.
    """
    config = config or QConfig.best()
    graph = read_graph(mod)
    _check_layer_names(graph, config)
    refused = _refused_layers(graph, config)
    quantized = {n.index for n in graph.nodes if n.op in LAYERS and n.index not in refused}
    chains = find_chains(graph, quantized)
    refused.update(_refused_operators(graph, chains, config))
    wanted = _wanted(graph, chains, quantized, refused)
    layers = {chain.root: chain for chain in chains if chain.root in quantized}
    tensors = _tensors(graph, wanted, config, layers)
    kept = _kept_float(graph, chains, refused, wanted)
    return Annotation(tensors, layers, kept, graph)


def _check_layer_names(graph: Graph, config: QConfig) -> None:
    names = [node.name for node in graph.nodes if node.op in LAYERS]
    for name, _ in config.layer_bits:
        if name not in names:
            raise QuantizeError(
                f"QConfig.layer_bits names {name!r}, which is no layer{did_you_mean(name, names)} "
                f"(there are: {', '.join(names)})"
            )


def _refused_layers(graph: Graph, config: QConfig) -> dict[int, str]:
    """Layers that stay float, with the reason."""
    convs = [node.index for node in graph.nodes if node.op == "nn.conv2d"]
    for index in config.skip_conv_layers:
        # The default skips the first one; of a network without any it asks nothing.
        if index >= max(len(convs), 1):
            raise QuantizeError(
                f"QConfig.skip_conv_layers names convolution {index}, but the network has "
                f"{len(convs)}, counted from 0"
            )
    skipped = {convs[index] for index in config.skip_conv_layers if convs}
    refused = {}
    for node in graph.nodes:
        if node.op in LAYERS:
            reason = layer_refusal(node)
            if node.index in skipped:
                reason = f"skip_conv_layers holds {convs.index(node.index)}"
            elif node.op == "matmul" and config.skip_dense_layer:
                reason = reason or "skip_dense_layer"
            reason = reason or _not_enabled(node, config)
            if reason:
                refused[node.index] = reason
    return refused


def _not_enabled(node: Node, config: QConfig) -> str | None:
    """Why `debug_enabled_ops` keeps an operator in float; None if it does not."""
    if config.debug_enabled_ops is None:
        return None
    enabled = [RELAY_NAMES.get(name, name) for name in config.debug_enabled_ops]
    known = (*LAYERS, *EIGHT_BIT)
    for name in enabled:
        if name not in known:
            near = did_you_mean(name, known)
            raise QuantizeError(
                f"QConfig.debug_enabled_ops holds {name!r}, which is never quantized{near} "
                f"(there are: {', '.join(known)})"
            )
    return None if node.op in enabled else f"debug_enabled_ops does not hold {node.op}"


def _refused_operators(graph: Graph, chains: list[Chain], config: QConfig) -> dict[int, str]:
    """Operators that no layer takes and that have no 8-bit form, with the reason."""
    inside = {index for chain in chains for index in chain.members}
    free_adds = {chain.root for chain in chains if graph.nodes[chain.root].op == "add"}
    reasons = {}
    for node in graph.nodes:
        if node.index in free_adds:
            reasons[node.index] = _not_enabled(node, config)
        elif node.index not in inside and node.op != "input":
            reasons[node.index] = eight_bit_refusal(node, graph) or _not_enabled(node, config)
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
            if node.index not in refused or chain.root in quantized:
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


def _tensors(
    graph: Graph, wanted: set[int], config: QConfig, layers: Iterable[int]
) -> dict[int, QTensor]:
    unsigned = non_negative(graph)
    shares = _shared_scales(graph, wanted)
    bits = _bits_of_data(graph, shares, config, layers)
    wide = _meet_wide_weights(graph, shares, config, layers)
    tensors: dict[int, QTensor] = {}
    for index in sorted(wanted):
        nbit = bits.get(shares[index], config.nbit_input)
        dtype, signed = _stored_as(config, nbit, index in unsigned, shares[index] in wide)
        name = graph.nodes[index].name
        tensors[index] = QTensor(index, name, dtype, shares[index], nbit, signed)
    return tensors


def _shared_scales(graph: Graph, wanted: set[int]) -> dict[int, int]:
    """For each quantized tensor the one whose scale it has."""
    shares: dict[int, int] = {}
    for index in sorted(wanted):
        node = graph.nodes[index]
        source = node.inputs[0] if node.op in VALUE_PRESERVING and node.inputs else None
        shares[index] = shares.get(source, index)
    return shares


def _bits_of_data(
    graph: Graph, shares: Mapping[int, int], config: QConfig, layers: Iterable[int]
) -> dict[int, int]:
    """Bits of the tensors that own a scale and that layers read: the most that one asks for."""
    bits: dict[int, int] = {}
    for index in layers:
        owner = shares[graph.nodes[index].inputs[0]]
        asked = config.for_layer(graph.nodes[index].name).nbit_input
        bits[owner] = max(bits.get(owner, 0), asked)
    return bits


def _meet_wide_weights(
    graph: Graph, shares: Mapping[int, int], config: QConfig, layers: Iterable[int]
) -> set[int]:
    """Tensors that own a scale and are multiplied by weights of more than 8 bits."""
    nodes = [graph.nodes[index] for index in layers]
    wide = [node for node in nodes if config.for_layer(node.name).nbit_weight > 8]
    return {shares[node.inputs[0]] for node in wide}


def _stored_as(config: QConfig, nbit: int, is_non_negative: bool, wide: bool) -> tuple[str, bool]:
    """(dtype, signed) of an activation, which meets ``wide`` weights or not."""
    asked = config.dtype_input
    # No instruction multiplies uint8 by int16.
    if nbit > 8 or asked == "int16" or (asked == "auto" and wide):
        return "int16", not is_non_negative
    if nbit < 8 or asked == "uint8":
        return "uint8", asked == "int8" or not is_non_negative
    if asked == "auto" and (is_non_negative or config.asymmetric):
        return "uint8", not is_non_negative
    return "int8", True


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
