"""What stays with TVM: the call that a network had, on what its operands have become."""

from __future__ import annotations

from collections.abc import Mapping

from tvm import relax

from .graph import Node, Value
from .read import QuantizedConstant, Reader


def tvm_call(node: Node, reader: Reader, variables: Mapping[Value, relax.Expr]) -> relax.Expr:
    """The Relax expression of a node that stays with TVM, in terms of ``variables``."""
    if isinstance(node.call, relax.TupleGetItem):
        return relax.TupleGetItem(variables[node.inputs[0]], node.call.index)
    # The layout pass may have put conversions between a variable and this call.
    operands = iter(variables[value] for value in node.inputs)
    arguments = [_argument(argument, reader, operands) for argument in node.call.args]
    return relax.Call(node.call.op, arguments, node.call.attrs, node.call.ty_args)


def _argument(expression, reader: Reader, operands):
    known = reader.lookup(expression)
    if isinstance(known, Value):
        return next(operands)
    if isinstance(known, QuantizedConstant):
        return relax.const(known.dequantized)
    if isinstance(expression, relax.Tuple) or isinstance(known, tuple):
        fields = expression.fields if isinstance(expression, relax.Tuple) else known
        return relax.Tuple([_argument(field, reader, operands) for field in fields])
    return known
