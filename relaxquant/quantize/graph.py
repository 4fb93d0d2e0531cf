"""The network as a list of nodes, and the way back from it to a Relax module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tvm import IRModule, relax
from tvm.ir import Call, GenericConst, Op
from tvm.relax.utils import copy_with_new_vars
from tvm.tirx import IntImm

from .config import QuantizeError

RESULT = -1
"""Stands for the function's result among the consumers of a node."""

Var = relax.Var
Expr = relax.Expr


@dataclass(frozen=True)
class Node:
    """One tensor: the function's input, or what an operator computes.

    Parameters
    ----------
    index : int
        Place in program order; the function's parameters come first.
    var : relax.Var
        The variable bound to it.
    value : relax.Expr, optional
        What it is bound to; None for a parameter.
    op : str
        Operator name without the leading ``relax.``; ``"input"`` for a parameter.
    inputs : tuple of int
        The nodes it reads, in operand order; a node read twice is there twice.
    constants : tuple of GenericConst
        The constants it reads, in operand order.
    """

    index: int
    var: Var
    value: Expr | None
    op: str
    inputs: tuple[int, ...] = ()
    constants: tuple[GenericConst, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """Name of the tensor in the module."""
        return self.var.name

    @property
    def attrs(self):
        """Attributes of the operator."""
        return self.value.attrs

    @property
    def shape(self) -> list | None:
        """Dimensions, integers or symbolic; None where unknown."""
        shape = getattr(self.var.ty, "shape", None)
        if shape is None:
            return None
        return [int(size) if isinstance(size, IntImm) else size for size in shape]


@dataclass(frozen=True)
class Graph:
    """Nodes in program order and who reads them.

    Parameters
    ----------
    nodes : tuple of Node
        Parameters first.
    consumers : tuple of tuple of int
        For each node, the nodes that read it, once for each operand; `RESULT` for the function.
    result : relax.Expr
        What the function returns, in terms of the nodes' variables.
    tuples : dict
        Variables bound to a tuple: not nodes, but names for their fields.
    index_of : dict
        Node index of each variable, aliases included.
    """

    nodes: tuple[Node, ...]
    consumers: tuple[tuple[int, ...], ...]
    result: Expr = field(repr=False)
    tuples: dict[Var, Expr] = field(repr=False)
    index_of: dict[Var, int] = field(repr=False)

    def only_consumer(self, index: int) -> Node | None:
        """The node that reads `index`, if that is one operator and no result."""
        readers = self.consumers[index]
        return self.nodes[readers[0]] if len(readers) == 1 and readers[0] != RESULT else None

    def operands_of(self, expr: Expr) -> list[int]:
        """The nodes that an expression of their variables reads."""
        if isinstance(expr, Var):
            if expr in self.tuples:
                return self.operands_of(self.tuples[expr])
            return [self.index_of[expr]] if expr in self.index_of else []
        return [index for child in _children(expr) for index in self.operands_of(child)]


def prepare(mod: IRModule) -> IRModule:
    """A clean copy of a float module: aliases, dead code and operations on constants removed.

    Its tensors have names of their own, which quantization keeps.

    Raises
    ------
    QuantizeError
        If `mod` has no ``main`` of one dataflow block, or is quantized already.
    """
    if any(node.op in ("quantize", "dequantize") for node in read_graph(mod).nodes):
        raise QuantizeError("the module holds quantize or dequantize already: give the fp32 module")
    for transform in (
        relax.transform.CanonicalizeBindings(),
        relax.transform.FoldConstant(),
        relax.transform.DeadCodeElimination(),
    ):
        mod = transform(mod)
    clean = mod.clone()
    clean["main"] = copy_with_new_vars(mod["main"])
    return _with_unique_names(clean)


def _with_unique_names(mod: IRModule) -> IRModule:
    """`mod`, where names of tensors tell them apart: frontends give one name to several."""
    graph = read_graph(mod)
    names = {node.name for node in graph.nodes}
    return mod if len(names) == len(graph.nodes) else rebuild(mod, graph)


def read_graph(mod: IRModule) -> Graph:
    """Read the one dataflow block of ``main``.

    Raises
    ------
    QuantizeError
        If `mod` has no ``main`` of one dataflow block.
    """
    block, reader = _dataflow_block(mod), _Reader()
    for param in mod["main"].params:
        reader.add(param, None, "input")
    for binding in block.bindings:
        if not isinstance(binding, relax.VarBinding):
            raise QuantizeError(f"'{binding.var.name}' is a match_cast, which cannot be quantized")
        reader.read(binding.var, binding.value)
    result = mod["main"].body.body
    consumers: list[list[int]] = [[] for _ in reader.nodes]
    for node in reader.nodes:
        for index in node.inputs:
            consumers[index].append(node.index)
    for index in reader.operands(result)[0]:
        consumers[index].append(RESULT)
    readers = tuple(map(tuple, consumers))
    return Graph(tuple(reader.nodes), readers, result, reader.tuples, reader.index_of)


def _dataflow_block(mod: IRModule) -> relax.DataflowBlock:
    names = [str(gv.name_hint) for gv in mod.get_global_vars()]
    if "main" not in names or not isinstance(mod["main"], relax.Function):
        found = ", ".join(names) or "none"
        raise QuantizeError(f"the module needs a Relax function 'main'; its functions: {found}")
    blocks = mod["main"].body.blocks
    if len(blocks) != 1 or not isinstance(blocks[0], relax.DataflowBlock):
        raise QuantizeError(
            "'main' must be one dataflow block, but it is not: import the model with "
            "relaxquant.frontends, or apply relax.transform.ConvertToDataflow"
        )
    return blocks[0]


class _Reader:
    """Collects nodes while the bindings are walked."""

    def __init__(self):
        self.nodes: list[Node] = []
        self.tuples: dict[Var, Expr] = {}
        self.index_of: dict[Var, int] = {}

    def add(self, var: Var, value: Expr | None, op: str) -> None:
        inputs, constants = ((), ()) if value is None else self.operands(value)
        self.index_of[var] = len(self.nodes)
        self.nodes.append(Node(len(self.nodes), var, value, op, inputs, constants))

    def read(self, var: Var, value: Expr) -> None:
        if isinstance(value, relax.Tuple):
            self.tuples[var] = value
        elif isinstance(value, Var) and value in self.tuples:
            self.tuples[var] = self.tuples[value]
        elif isinstance(value, Var):
            self.index_of[var] = self.index_of[value]
        else:
            self.add(var, value, _op_name(value))

    def operands(self, expr: Expr) -> tuple[tuple[int, ...], tuple[GenericConst, ...]]:
        """Nodes and constants below `expr`, tuples opened."""
        if isinstance(expr, Var):
            if expr in self.tuples:
                return self.operands(self.tuples[expr])
            return ((self.index_of[expr],), ()) if expr in self.index_of else ((), ())
        if isinstance(expr, GenericConst):
            return (), (expr,)
        parts = [self.operands(child) for child in _children(expr)]
        inputs = tuple(i for part in parts for i in part[0])
        return inputs, tuple(c for part in parts for c in part[1])


def _children(expr: Expr) -> list[Expr]:
    if isinstance(expr, Call):
        return list(expr.args)
    if isinstance(expr, relax.Tuple):
        return list(expr.fields)
    return [expr.tuple_value] if isinstance(expr, relax.TupleGetItem) else []


def _op_name(value: Expr) -> str:
    if isinstance(value, Call) and isinstance(value.op, Op):
        return value.op.name.removeprefix("relax.")
    return type(value).__name__


def rebuild(
    mod: IRModule,
    graph: Graph,
    *,
    reads: Callable[[relax.BlockBuilder, Node, Var], Var] = lambda bb, node, var: var,
    rewrite: Callable[[relax.BlockBuilder, Node, Call], Expr] = lambda bb, node, call: call,
    result: Expr | None = None,
) -> IRModule:
    """Emit `graph` again, with changes.

    Parameters
    ----------
    mod : IRModule
        The module `graph` was read from; not changed.
    graph : Graph
        Its nodes.
    reads : callable
        Called after a node is emitted; returns the variable that operators read instead of it.
        The function's result is the node's own value all the same.
    rewrite : callable
        Called with each operator call, operands already replaced; returns what to emit.
    result : relax.Expr, optional
        Another result, in terms of `graph`'s variables.

    Returns
    -------
    IRModule
        A new module with a new ``main`` and the other functions of `mod`.
    """
    main, bb = mod["main"], relax.BlockBuilder()
    own: dict[int, Expr] = {}
    read: dict[int, Expr] = {}
    result = graph.result if result is None else result
    last = graph.index_of.get(result) if isinstance(result, Var) else None
    with bb.function("main", list(main.params), attrs=dict(main.attrs) if main.attrs else None):
        with bb.dataflow():
            for node in graph.nodes:
                own[node.index] = node.var
                if node.value is not None:
                    value = replace_vars(node.value, graph, read)
                    value = rewrite(bb, node, value) if isinstance(value, Call) else value
                    emit = bb.emit_output if node.index == last else bb.emit
                    own[node.index] = emit(value, name_hint=node.name)
                read[node.index] = reads(bb, node, own[node.index])
            output = replace_vars(result, graph, own)
            if last is None:
                output = bb.emit_output(output, name_hint="result")
        bb.emit_func_output(output)
    new = mod.clone()
    # By value: the builder renames the function if a variable is called main.
    (function,) = bb.get().functions.values()
    new["main"] = function.with_attr("global_symbol", "main")
    return new


def replace_vars(expr: Expr, graph: Graph, new: dict[int, Expr]) -> Expr:
    """`expr` with the variables of nodes replaced by those in `new`."""
    if isinstance(expr, Var) and expr in graph.tuples:
        expr = graph.tuples[expr]
    if isinstance(expr, Var):
        return new[graph.index_of[expr]] if expr in graph.index_of else expr
    children = [replace_vars(child, graph, new) for child in _children(expr)]
    if all(map(relax.Expr.same_as, children, _children(expr))):
        return expr
    if isinstance(expr, Call):
        return Call(expr.op, children, expr.attrs, expr.ty_args)
    if isinstance(expr, relax.Tuple):
        return relax.Tuple(children)
    return relax.TupleGetItem(children[0], expr.index)
