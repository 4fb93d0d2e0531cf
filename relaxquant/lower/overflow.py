"""Which int16 layers must stay in float, because their sums could leave int32."""

from __future__ import annotations

import math

from ..kernels.int32_sums import INT32_MAX, largest_sums
from .graph import Graph, Node
from .realize import bias_steps


def find(graph: Graph) -> dict[str, str]:
    """The reason for each layer, by its label, whose sums are not proven to fit; after `ranges`."""
    reasons = {node.label: _reason(node) for node in graph.nodes if node.op == "conv2d"}
    return {label: reason for label, reason in reasons.items() if reason}


def _reason(node: Node) -> str:
    data = node.inputs[0]
    if not node.integer or data.dtype != "int16":
        return ""
    largest = int(largest_sums(node.weight.array, data.largest, bias_steps(node)).max(initial=0))
    if largest <= INT32_MAX:
        return ""
    return f"sums of int16 products may need {math.log2(largest) + 1:.1f} bits, more than int32 has"
