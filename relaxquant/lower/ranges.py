"""The largest value that each quantized activation can take: fewer bits allow faster arithmetic.

A tensor of n bits is written in QDQ as a clip to the range of n bits before ``R.quantize``. Any
other bound that the network has, of a ReLU6 for one, serves as well.
"""

from __future__ import annotations

import numpy as np

from ..kernels.rounding import TO_EVEN
from .graph import Graph, Node
from .realize import bounds

KEEP_VALUES = ("max_pool2d", "flatten", "view", "pad", "resize", "convert")


def find(graph: Graph) -> None:
    """Set `Value.largest` of every quantized value of a fused network, in place."""
    for node in graph.nodes:
        if node.output.is_quantized:
            node.output.largest = _largest(node)


def _largest(node: Node) -> int:
    if node.op in KEEP_VALUES:
        return node.inputs[0].largest
    low, high = bounds(node.output, node.clip)
    if node.output.dtype == "int16":
        whole = np.rint if node.output.rounding == TO_EVEN else np.ceil
        return max(int(whole(np.float32(abs(end)))) for end in (low, high))
    # No rounding gives more than this one; bounds are float32. Padding adds the zero point.
    stored = int(np.floor(np.float32(high) + np.float32(0.5))) + node.output.zero_point
    return max(stored, node.output.zero_point)
