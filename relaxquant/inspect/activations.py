"""Every quantized activation of a QDQ module as an output, to compare it with another framework's.

A tensor that is an output is stored, so what is fused around it changes; its numbers do not, as
nothing is fused over a quantize.
"""

from __future__ import annotations

import tvm
from tvm import relax

from ..lower.read import main_of
from ..parts import joined
from ..qdq import QUANTIZE


def quantized_activations(module: tvm.IRModule) -> list[str]:
    """Names of the variables of ``main`` that hold quantized activations, in program order."""
    return [var.name for var in _quantized(main_of(joined(module)))]


def with_activations(module: tvm.IRModule, names: list[str]) -> tvm.IRModule:
    """The module with the named variables as its outputs, images in NCHW.

    Parameters
    ----------
    module : tvm.IRModule
        QDQ Relax.
    names : list of str
        Of `quantized_activations`.
    """
    function = main_of(joined(module))
    bb = relax.BlockBuilder()
    parameters = [relax.Var(p.name, p.ty) for p in function.params]
    known = dict(zip(function.params, parameters, strict=True))
    wanted = {var.name: var for var in _quantized(function) if var.name in set(names)}
    with bb.function("main", parameters):
        with bb.dataflow():
            for block in function.body.blocks:
                for binding in block.bindings:
                    value = _replaced(binding.value, known)
                    known[binding.var] = bb.emit(value, name_hint=binding.var.name)
            outputs = bb.emit_output(relax.Tuple([known[wanted[name]] for name in names]))
        bb.emit_func_output(outputs)
    return bb.get()


def _quantized(function: relax.Function) -> list[relax.Var]:
    return [
        binding.var
        for block in function.body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call) and binding.value.op == QUANTIZE
    ]


def _replaced(expression: relax.Expr, known: dict) -> relax.Expr:
    """The expression with variables as ``known`` has them."""
    if isinstance(expression, relax.Var):
        return known[expression]
    if isinstance(expression, relax.Tuple):
        return relax.Tuple([_replaced(field, known) for field in expression.fields])
    if isinstance(expression, relax.TupleGetItem):
        return relax.TupleGetItem(_replaced(expression.tuple_value, known), expression.index)
    if isinstance(expression, relax.Call):
        arguments = [_replaced(argument, known) for argument in expression.args]
        return relax.Call(expression.op, arguments, expression.attrs, expression.ty_args)
    return expression
