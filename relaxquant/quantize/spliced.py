"""Modules of a fp32 network with parts of its quantized form, beside it or in its place."""

from __future__ import annotations

from collections.abc import Callable

from tvm import IRModule, relax

from .graph import Expr, Graph, Node, rebuild, replace_vars
from .points import Pair, Point


def accumulated_module(pair: Pair) -> IRModule:
    """The quantized network, returning every point as its readers get it."""
    result = relax.Tuple([point.read.var for point in pair.points])
    return _without_dead(rebuild(pair.qmod, pair.qgraph, result=result))


def own_module(pair: Pair) -> IRModule:
    """The original, returning every point twice: exact, and from exact tensors in integers.

    The second is what the quantized network computes between that point and the points before it,
    their rounding included, given the original's values of those: the error that is this layer's.
    """
    splice = _Splice(pair)

    def result() -> Expr:
        exact = [splice.exact[point.exact.index] for point in pair.points]
        own = [splice.quantized(point, point.read.index) for point in pair.points]
        return relax.Tuple([*exact, *own])

    return splice.build({}, result)


def alone_module(pair: Pair, layer: str) -> IRModule:
    """The original, with one layer's chain as the quantized network computes it.

    What the layer reads is rounded for it alone, its weights are rounded, and what its chain
    computes stays float.
    """
    chain = next(c for c in pair.chains if pair.graph.nodes[c.root].name == layer)
    point = next(p for p in pair.points if p.exact.index == chain.end)
    splice = _Splice(pair)
    instead = {chain.end: lambda: splice.quantized(point, point.quantized.index)}
    return splice.build(instead, lambda: replace_vars(pair.graph.result, pair.graph, splice.exact))


class _Splice:
    """Emits the original, and nodes of the quantized network that read its values.

    Attributes
    ----------
    exact : dict of int to relax.Expr
        What was emitted of the original, by node.
    """

    def __init__(self, pair: Pair):
        self.pair, self.bb = pair, relax.BlockBuilder()
        self.exact: dict[int, Expr] = {}
        self.point_of = {point.quantized.index: point for point in pair.points}

    def build(self, instead: dict[int, Callable[[], Expr]], result: Callable[[], Expr]) -> IRModule:
        """The module; `instead` emits other values for some nodes of the original."""
        main = self.pair.mod["main"]
        with self.bb.function("main", list(main.params)):
            with self.bb.dataflow():
                for node in self.pair.graph.nodes:
                    emit = instead.get(node.index)
                    value = emit() if emit else self._emit(node, self.pair.graph, self.exact)
                    self.exact[node.index] = value
                output = self.bb.emit_output(result())
            self.bb.emit_func_output(output)
        return _without_dead(self.bb.get())

    def quantized(self, point: Point, index: int) -> Expr:
        """Node `index` of the quantized network, of a point or after it, from the points before."""
        known: dict[int, Expr] = {}
        for between in self._between(point, index):
            node = self.pair.qgraph.nodes[between]
            before = self.point_of.get(between)
            if node.value is None:
                known[between] = self.exact[between]  # parameters come first in both
            elif before is not None and before is not point:
                known[between] = self.exact[before.exact.index]
            else:
                known[between] = self._emit(node, self.pair.qgraph, known)
        return known[index]

    def _between(self, point: Point, index: int) -> list[int]:
        """The nodes from the points before `point` up to `index`, in program order."""
        found, left = set(), [index]
        while left:
            index = left.pop()
            if index not in found:
                found.add(index)
                before = self.point_of.get(index)
                if before is None or before is point:
                    left.extend(self.pair.qgraph.nodes[index].inputs)
        return sorted(found)

    def _emit(self, node: Node, graph: Graph, known: dict[int, Expr]) -> Expr:
        if node.value is None:
            return node.var
        return self.bb.emit(replace_vars(node.value, graph, known), name_hint=node.name)


def _without_dead(mod: IRModule) -> IRModule:
    return relax.transform.DeadCodeElimination()(mod)
