"""What a QDQ module quantizes, as rows for people to read."""

from __future__ import annotations

from typing import NamedTuple

from tvm import IRModule
from tvm.ir import GenericConst

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
    """

    tensor: str
    dtype: str
    scale: float
    zero_point: int
    producer: str
    channels: int


def summary(qmod: IRModule) -> list[SummaryRow]:
    """List the quantized tensors of a QDQ module in program order.

    Parameters
    ----------
    qmod : IRModule
        QDQ Relax, from `quantize` or a frontend.

    Returns
    -------
    list of SummaryRow
        One row for each ``R.quantize`` and each int8 weight.
    """
    graph = read_graph(qmod)
    value_of = {node.var: node.value for node in graph.nodes}.get
    rows = []
    for node in graph.nodes:
        if node.op == "quantize" and node.inputs:
            source = graph.nodes[graph.index_of[quantized_source(node.value, value_of)]]
            rows.append(_row(source.name, str(node.attrs["out_dtype"]), source.op, node))
        elif node.op == "dequantize" and not node.inputs:
            readers = [graph.nodes[i].name for i in graph.consumers[node.index] if i >= 0]
            dtype = str(node.constants[0].ty.dtype)
            rows.append(_row(", ".join(readers) or node.name, dtype, "weight", node))
    return rows


def _row(tensor: str, dtype: str, producer: str, node: Node) -> SummaryRow:
    scale, zero_point = (_values(arg) for arg in node.value.args[1:3])
    return SummaryRow(
        tensor, dtype, float(scale.max()), int(zero_point.flat[0]), producer, scale.size
    )


def _values(constant: GenericConst):
    return constant.value.numpy()
