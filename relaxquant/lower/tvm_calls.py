"""What stays with TVM: the call that a network had, on what its operands have become."""

from __future__ import annotations

from collections.abc import Mapping

from tvm import relax

from ..kernels.spec import FLOATS
from .graph import Node, Value
from .read import QuantizedConstant, Reader


def tvm_call(node: Node, reader: Reader, variables: Mapping[Value, relax.Expr]) -> relax.Expr:
    """The Relax expression of a node that stays with TVM, in terms of ``variables``."""
    if isinstance(node.call, relax.TupleGetItem):
        return relax.TupleGetItem(variables[node.inputs[0]], node.call.index)
    if node.op == "flatten":  # gives the type that it gets
        arguments = [variables[node.inputs[0]], *node.call.args[1:]]
        return relax.Call(node.call.op, arguments, node.call.attrs, node.call.ty_args)
    # The layout pass may have put conversions between a variable and this call.
    operands = iter(variables[value] for value in node.inputs)
    arguments = [
        _argument(reader.lookup(argument), argument.ty, operands) for argument in node.call.args
    ]
    return relax.Call(node.call.op, arguments, node.call.attrs, node.call.ty_args)


def _argument(known, kind, operands):
    """What is known of an argument as an expression of the type ``kind`` that the call had."""
    if isinstance(known, Value):
        return _in_its_float(next(operands), kind)
    if isinstance(known, QuantizedConstant):
        return relax.const(known.dequantized)
    if isinstance(known, tuple):
        fields = zip(known, kind.fields, strict=True)
        return relax.Tuple([_argument(field, each, operands) for field, each in fields])
    return known


def _in_its_float(variable, kind):
    """A float16 variable as float32 where the call had it so: the reader takes no notice of it."""
    if not isinstance(kind, relax.TensorType) or str(variable.ty.dtype) not in FLOATS:
        return variable
    wanted = str(kind.dtype)
    cast = wanted in FLOATS and wanted != variable.ty.dtype
    return relax.op.astype(variable, wanted) if cast else variable
