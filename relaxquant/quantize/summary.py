"""What a QDQ module quantizes, as rows for people to read."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from tvm import IRModule
from tvm.ir import GenericConst

from ..parts import joined
from ..qdq import quantized_source
from .graph import Node, read_graph


class SummaryRow(NamedTuple):
    """One quantized tensor.

    Parameters
    ----------
    tensor : str
        Name of the tensor; for weights, of the layer that reads them.
    dtype : str
        ``"int8"`` or ``"uint8"``.
    scale : float
        Real units for one step; the largest one if there is one for each channel.
    zero_point : int
        The integer that stands for 0.
    producer : str
        Operator that computes it, ``"input"`` or ``"weight"``.
    channels : int
        Number of scales.
    bits : float
        Binary logarithm of how many integers are used: by the values of weights, or between the
        bounds of an activation. 16-bit activations use as many as int32 sums allow.
    """

    tensor: str
    dtype: str
    scale: float
    zero_point: int
    producer: str
    channels: int
    bits: float


def summary(qmod: IRModule) -> list[SummaryRow]:
    """List the quantized tensors of a QDQ module in program order.

    Parameters
    ----------
    qmod : IRModule
        QDQ Relax, from `quantize` or a frontend.

    Returns
    -------
    list of SummaryRow
        One row for each ``R.quantize`` and each integer weight.
    """
    graph = read_graph(joined(qmod))
    value_of = {node.var: node.value for node in graph.nodes}.get
    rows = []
    for node in graph.nodes:
        if node.op == "quantize" and node.inputs:
            source = graph.nodes[graph.index_of[quantized_source(node.value, value_of)]]
            dtype = str(node.attrs["out_dtype"])
            used = _integers_between(dtype, graph.nodes[node.inputs[0]], node)
            rows.append(_row(source.name, dtype, source.op, node, used))
        elif node.op == "dequantize" and not node.inputs:
            readers = [graph.nodes[i].name for i in graph.consumers[node.index] if i >= 0]
            weight = _values(node.constants[0])
            used = _integers_of(weight)
            name = ", ".join(readers) or node.name
            rows.append(_row(name, str(weight.dtype), "weight", node, used))
    return rows


def _integers_of(weight: np.ndarray) -> int:
    """How many integers weights can be: those between their ends, or -1 and 1."""
    low, high = int(weight.min(initial=0)), int(weight.max(initial=0))
    return 2 if high <= 1 and np.abs(weight).min(initial=1) == 1 else high - low + 1


def _integers_between(dtype: str, before: Node, quantize: Node) -> int:
    """How many integers an activation can become, if what it quantizes is clipped."""
    info = np.iinfo(dtype)
    if before.op != "clip":
        return info.max - info.min + 1
    scale, zero_point = (_values(arg) for arg in quantize.value.args[1:3])
    ends = [float(arg.value) for arg in before.value.args[1:3]]
    low, high = np.clip(np.rint(ends / scale.max()) + zero_point.flat[0], info.min, info.max)
    return max(int(high - low) + 1, 1)


def _row(tensor: str, dtype: str, producer: str, node: Node, integers: int) -> SummaryRow:
    scale, zero_point = (_values(arg) for arg in node.value.args[1:3])
    largest = float(scale.max())
    bits = math.log2(integers)
    return SummaryRow(tensor, dtype, largest, int(zero_point.flat[0]), producer, scale.size, bits)


def _values(constant: GenericConst):
    return constant.value.numpy()
