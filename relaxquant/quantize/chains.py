"""Fused chains: a layer with the bias, residual addition and activation that follow it.

Inside a chain values stay float in QDQ, because the lowering computes it in one kernel and rounds
only once, at the end.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from .graph import Graph
from .operators import ACTIVATIONS, LAYERS, is_bias_add, is_tensor_add


@dataclass(frozen=True)
class Chain:
    """Nodes computed together; all but the last are read by the next one only.

    Parameters
    ----------
    members : tuple of int
        Node indices from the root, a conv2d, matmul or a tensor addition that no convolution took,
        to the end.
    bias : int, optional
        The member that adds the bias.
    residual : int, optional
        The member that adds another tensor to a convolution.
    """

    members: tuple[int, ...]
    bias: int | None = None
    residual: int | None = None

    @property
    def root(self) -> int:
        """The node it starts with."""
        return self.members[0]

    @property
    def end(self) -> int:
        """The node whose value leaves it."""
        return self.members[-1]


def find_chains(graph: Graph, quantized: Set[int]) -> list[Chain]:
    """All fused chains of a network.

    Parameters
    ----------
    graph : Graph
        The network.
    quantized : set of int
        The layers (conv2d and matmul nodes) that will be quantized.

    Returns
    -------
    list of Chain
        In order of their roots; no node is in two of them.
    """
    layers = [_with_bias(graph, node.index) for node in graph.nodes if node.op in LAYERS]
    residuals = _residual_adds(graph, layers, quantized)
    taken = set(residuals.values())
    chains = [_with_residual(chain, residuals.get(chain.root)) for chain in layers]
    chains += [
        Chain((node.index,))
        for node in graph.nodes
        if is_tensor_add(node, graph) and node.index not in taken
    ]
    chains = [_with_activation(graph, chain) for chain in chains]
    return sorted(chains, key=lambda chain: chain.root)


def _with_bias(graph: Graph, root: int) -> Chain:
    reader = graph.only_consumer(root)
    if reader is not None and is_bias_add(reader, graph.nodes[root]):
        return Chain((root, reader.index), bias=reader.index)
    return Chain((root,))


def _residual_adds(graph: Graph, layers: list[Chain], quantized: Set[int]) -> dict[int, int]:
    """The addition that each convolution takes, by convolution.

    Of two convolutions the later one takes it: when it runs, the other's result is there. A
    quantized convolution goes before a float one, so that the addition is done in integers.
    """
    ends = {
        chain.end: chain.root
        for chain in layers
        if graph.nodes[chain.root].op == "nn.conv2d" and graph.only_consumer(chain.end)
    }
    adds = [node for node in graph.nodes if is_tensor_add(node, graph)]
    taken = {}
    for add in adds:
        offers = [ends[index] for index in add.inputs if index in ends]
        if offers:
            taken[max(offers, key=lambda root: (root in quantized, root))] = add.index
    return taken


def _with_residual(chain: Chain, add: int | None) -> Chain:
    return chain if add is None else Chain((*chain.members, add), chain.bias, add)


def _with_activation(graph: Graph, chain: Chain) -> Chain:
    reader = graph.only_consumer(chain.end)
    if reader is None or reader.op not in ACTIVATIONS:
        return chain
    return Chain((*chain.members, reader.index), chain.bias, chain.residual)
