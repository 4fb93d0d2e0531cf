"""A QDQ module in three functions: conversions of inputs, an integer middle, those of outputs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from tvm import IRModule, relax

from ..parts import MIDDLE, PREFIX, SUFFIX, sum_from_int32, sum_to_int32
from .annotate import Annotation
from .config import QuantizeError
from .graph import RESULT, Graph, Node, read_graph, replace_vars
from .operators import LAYERS


def partition(qmod: IRModule, annotation: Annotation, *, fully_integral: bool = False) -> IRModule:
    """Split ``main`` of a QDQ module into private functions that a new ``main`` calls in a row.

    ``prefix`` takes the inputs and returns them quantized, with whatever float operators come
    first. ``middle`` holds every quantized layer: it takes integers and returns integers, quantized
    activations as they are and a last layer's sum as int32. ``suffix`` is the rest, in float.

    Parameters
    ----------
    qmod : IRModule
        From `insert_qdq`; not changed.
    annotation : Annotation
        What it was made with: says which operators stay in float.
    fully_integral : bool
        Refuse float operators in the middle.

    Returns
    -------
    IRModule
        The four functions, and other functions that `qmod` had. `relaxquant.compile` joins them.

    Raises
    ------
    QuantizeError
        If the middle must be integral and is not; the message names what is float.

    Notes
    -----
    What relay.quantize did with ``partition_conversions``
    (``python/tvm/relay/quantize/_partition_conversions.py``, Relay, removed).
    """
    graph = read_graph(qmod)
    parts = _Parts(graph)
    if fully_integral:
        _refuse_float(graph, parts, annotation)
    return _Emitter(qmod, graph, parts).emit()


class _Parts:
    """Which part each node is in, and what goes from one to the next.

    A dequantize belongs to whoever reads it, and is in no part itself.
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        self.layers = {n.index for n in graph.nodes if is_quantized_layer(graph, n)}
        self.part: dict[int, str] = {}
        integers = self._behind_integers()
        core = self._before_integers(integers)
        for node in graph.nodes:
            if not is_dequantize(node):
                inner = MIDDLE if node.index in core else SUFFIX
                self.part[node.index] = inner if node.index in integers else PREFIX
        self.from_prefix = self._crossing({PREFIX}, {MIDDLE, SUFFIX})
        self.from_middle = self._crossing({MIDDLE}, {SUFFIX})

    def _behind_integers(self) -> set[int]:
        """Nodes that read an activation from integers, directly or not."""
        found: set[int] = set()
        for node in self.graph.nodes:
            from_integers = is_dequantize(node) and node.inputs
            if from_integers or found.intersection(node.inputs):
                found.add(node.index)
        return found

    def _before_integers(self, integers: set[int]) -> set[int]:
        """Of those the ones that a quantized layer or a quantize needs, and these themselves."""
        found: set[int] = set()
        for node in reversed(self.graph.nodes):
            if node.index not in integers:
                continue
            ends_here = node.index in self.layers or node.op == "quantize"
            if ends_here or found.intersection(self.graph.consumers[node.index]):
                found.add(node.index)
        return found

    def _crossing(self, sources: set[str], readers: set[str]) -> list[int]:
        """Nodes of `sources` that `readers` need, in program order."""
        needed: set[int] = set()
        for node in self.graph.nodes:
            if self.part.get(node.index) in readers:
                needed.update(self.sources_of(node.inputs))
        if SUFFIX in readers:
            results = [n.index for n in self.graph.nodes if RESULT in self.graph.consumers[n.index]]
            needed.update(self.sources_of(results))
        return [index for index in sorted(needed) if self.part[index] in sources]

    def sources_of(self, indices: Iterable[int]) -> list[int]:
        """The nodes as they are handed over: a dequantize as what it reads, constants not."""
        nodes = [self.graph.nodes[index] for index in indices]
        found = [n.inputs if is_dequantize(n) else (n.index,) for n in nodes]
        return [index for group in found for index in group]


def is_dequantize(node: Node) -> bool:
    """Whether the node gives float values of integers, weights' too."""
    return node.op == "dequantize"


def is_quantized_layer(graph: Graph, node: Node) -> bool:
    """Whether the node multiplies dequantized data by dequantized weights."""
    if node.op not in LAYERS:
        return False
    return len(node.inputs) == 2 and all(is_dequantize(graph.nodes[i]) for i in node.inputs)


def _refuse_float(graph: Graph, parts: _Parts, annotation: Annotation) -> None:
    kept = {each.name: each for each in annotation.kept_float}
    found = [
        f"{kept[node.name].op} '{node.name}' ({kept[node.name].reason})"
        for node in graph.nodes
        if parts.part.get(node.index) == MIDDLE and node.name in kept
    ]
    for index in {*parts.from_prefix, *parts.from_middle}:
        node = graph.nodes[index]
        enters = parts.part[index] == PREFIX and _read_by(graph, parts, index, MIDDLE)
        leaves = parts.part[index] == MIDDLE and index not in parts.layers
        if node.op != "quantize" and (enters or leaves):
            found.append(f"'{node.name}' {'enters' if enters else 'leaves'} it in float")
    if found:
        raise QuantizeError(
            "QConfig.partition_conversions is 'fully_integral', but the middle is not: "
            f"{'; '.join(found)}. Use 'enabled'"
        )


def _read_by(graph: Graph, parts: _Parts, index: int, part: str) -> bool:
    readers = [graph.nodes[i] for i in graph.consumers[index] if i != RESULT]
    return any(parts.part.get(reader.index) == part for reader in readers)


def _hint(node: Node) -> str:
    """A name for the node's variable in ``main``, where the functions' names are theirs."""
    return f"{node.name}_" if node.name in (PREFIX, MIDDLE, SUFFIX, "main") else node.name


class _Emitter:
    """Builds the functions; one use."""

    def __init__(self, qmod: IRModule, graph: Graph, parts: _Parts):
        self.qmod, self.graph, self.parts = qmod, graph, parts
        self.bb = relax.BlockBuilder()  # one for each function, so that tensors keep their names

    def emit(self) -> IRModule:
        """The partitioned module."""
        main, parts = self.qmod["main"], self.parts
        inputs = [node.index for node in self.graph.nodes if node.op == "input"]
        into_middle = self._read_in(MIDDLE, parts.from_prefix)
        into_suffix = self._read_in(SUFFIX, parts.from_prefix)
        bodies = {
            PREFIX: self._function(PREFIX, inputs, parts.from_prefix),
            MIDDLE: self._function(MIDDLE, into_middle, parts.from_middle),
            SUFFIX: self._function(SUFFIX, [*parts.from_middle, *into_suffix], None),
        }
        self.bb = relax.BlockBuilder()
        functions = [self.bb.add_func(body, name) for name, body in bodies.items()]
        params = [relax.Var(param.name, param.ty) for param in main.params]
        attrs = dict(main.attrs) if main.attrs else None
        with self.bb.function("main", params, attrs=attrs):
            with self.bb.dataflow():
                prefix = self._call(functions[0], params, parts.from_prefix)
                middle = self._call(
                    functions[1], [prefix[i] for i in into_middle], parts.from_middle
                )
                arguments = [middle[i] for i in parts.from_middle]
                arguments += [prefix[i] for i in into_suffix]
                output = self.bb.emit_output(relax.Call(functions[2], arguments), self._result())
            self.bb.emit_func_output(output)
        return self._with_others(self.bb.get())

    def _result(self) -> str:
        index = self.graph.index_of.get(self.graph.result)
        return "result" if index is None else _hint(self.graph.nodes[index])

    def _with_others(self, built: IRModule) -> IRModule:
        for var, function in self.qmod.functions.items():
            if var.name_hint != "main":
                built[var.name_hint] = function
        return built

    def _call(self, function, arguments: list, results: list[int]) -> dict[int, relax.Expr]:
        value = self.bb.emit(relax.Call(function, arguments), name_hint=function.name_hint)
        return {
            index: self.bb.emit(relax.TupleGetItem(value, place), _hint(self.graph.nodes[index]))
            for place, index in enumerate(results)
        }

    def _read_in(self, part: str, handed: list[int]) -> list[int]:
        """Of what is handed over the nodes that a part reads."""
        parts, needed = self.parts, set()
        for node in self.graph.nodes:
            if parts.part.get(node.index) == part:
                needed.update(parts.sources_of(node.inputs))
            if part == SUFFIX and RESULT in self.graph.consumers[node.index]:
                needed.update(parts.sources_of([node.index]))
        return [index for index in handed if index in needed]

    def _function(self, name: str, inputs: list[int], results: list[int] | None) -> relax.Function:
        """One part: a function of `inputs` that returns the tuple of `results`, or the result."""
        self.bb = relax.BlockBuilder()
        own: dict[int, relax.Expr] = {}
        params = [self._param(index, name) for index in inputs]
        with self.bb.function(name, params, private=True):
            with self.bb.dataflow():
                for index, param in zip(inputs, params, strict=True):
                    is_sum = name == SUFFIX and self._is_sum(index)
                    own[index] = param
                    if is_sum:
                        own[index] = sum_from_int32(self.bb, param, self._unit(index))
                for node in self.graph.nodes:
                    if self.parts.part.get(node.index) == name and node.op != "input":
                        self._emit(node, own)
                if results is None:
                    output = self._value(self.graph.result, own)
                else:
                    output = relax.Tuple([self._handed_over(index, name, own) for index in results])
                output = self.bb.emit_output(output)
            self.bb.emit_func_output(output)
        (function,) = self.bb.get().functions.values()
        return function

    def _param(self, index: int, name: str) -> relax.Var:
        node = self.graph.nodes[index]
        ty = node.var.ty
        if name == SUFFIX and self._is_sum(index):
            ty = relax.TensorType(ty.shape, "int32")
        return relax.Var(node.name, ty)

    def _handed_over(self, index: int, name: str, own: dict) -> relax.Expr:
        if name == MIDDLE and self._is_sum(index):
            return sum_to_int32(self.bb, own[index], self._unit(index))
        return own[index]

    def _emit(self, node: Node, own: dict) -> None:
        own[node.index] = self.bb.emit(self._value(node.value, own), node.name)

    def _value(self, expr: relax.Expr, own: dict) -> relax.Expr:
        """`expr` in a function's own variables, emitting the dequantizes it reads."""
        for index in self.graph.operands_of(expr):
            node = self.graph.nodes[index]
            if index not in own and is_dequantize(node):
                self._emit(node, own)
        return replace_vars(expr, self.graph, own)

    def _is_sum(self, index: int) -> bool:
        return index in self.parts.layers and self.parts.part[index] == MIDDLE

    def _unit(self, index: int) -> np.ndarray:
        """What a layer's sum is a multiple of, shaped to broadcast over it."""
        node = self.graph.nodes[index]
        data, weight = (self.graph.nodes[i].value.args[1].value.numpy() for i in node.inputs)
        unit = (data * weight).astype(np.float32)
        return unit.reshape(-1, 1, 1) if node.op == "nn.conv2d" and unit.size > 1 else unit
