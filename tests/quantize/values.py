"""What a QDQ module computes on the way."""

from __future__ import annotations

from tvm import relax

from relaxquant.quantize.graph import read_graph, rebuild


def quantized_values(qmod, stock, x):
    """{name: values} of all that ``R.quantize`` computes, as stock TVM runs it."""
    graph = read_graph(qmod)
    nodes = [node for node in graph.nodes if node.op == "quantize" and node.inputs]
    result = relax.Tuple([node.var for node in nodes])
    outputs = stock(rebuild(qmod, graph, result=result))(x)
    return {node.name: output for node, output in zip(nodes, outputs, strict=True)}
