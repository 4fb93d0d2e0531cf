"""Modules in parts: conversions of inputs, an integer middle, conversions of outputs.

`relaxquant.quantize` writes them for ``partition_conversions``; whoever compiles or reads a whole
network joins them again. A layer's sum leaves the middle as int32, in units of the layer's data
times its weights, of which it is a multiple.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst, Op
from tvm.relax import op as R

PREFIX, MIDDLE, SUFFIX = "prefix", "middle", "suffix"


def joined(module: tvm.IRModule) -> tvm.IRModule:
    """The module with its private functions in ``main``; itself if there are none."""
    functions = [f for f in module.functions.values() if isinstance(f, relax.Function)]
    if all(function.attrs and "global_symbol" in function.attrs for function in functions):
        return module
    module = relax.transform.InlinePrivateFunctions()(module)
    if "main" in [var.name_hint for var in module.get_global_vars()]:
        module["main"] = _one_symbol_each(module["main"])
    return module


def _one_symbol_each(function: relax.Function) -> relax.Function:
    """The function with the symbols of its parameters, by name, for those that it inlined.

    TVM 0.27 gives what it inlines symbols of its own and leaves them without a value.
    """
    mine = {var.name: var for var in relax.analysis.defined_symbolic_vars(function)}
    others = [v for v in relax.analysis.free_symbolic_vars(function) if v.name in mine]
    if not others:
        return function
    # Only symbols that a parameter has can be bound.
    holder = relax.Var("symbols", relax.ShapeType(others))
    wider = relax.Function([*function.params, holder], function.body, function.ret_ty)
    bound = wider.bind_symbolic_vars({var: mine[var.name] for var in others})
    plain = relax.Function(bound.params[:-1], bound.body, bound.ret_ty)
    return plain.with_attrs(function.attrs)


def sum_to_int32(bb: relax.BlockBuilder, value: relax.Var, unit: np.ndarray) -> relax.Var:
    """Emit a layer's sum as multiples of `unit`, which broadcasts over it."""
    steps = bb.emit(R.divide(value, relax.const(unit)), name_hint=f"{value.name}_steps")
    whole = bb.emit(R.round(steps), name_hint=f"{value.name}_whole")
    return bb.emit(R.astype(whole, "int32"), name_hint=f"{value.name}_sum")


def sum_from_int32(bb: relax.BlockBuilder, steps: relax.Var, unit: np.ndarray) -> relax.Var:
    """Emit the inverse of `sum_to_int32`."""
    whole = bb.emit(R.astype(steps, "float32"), name_hint=f"{steps.name}_float")
    return bb.emit(R.multiply(whole, relax.const(unit)), name_hint=f"{steps.name}_real")


def read_sum(
    multiply: relax.Call, value_of: Callable[[relax.Var], relax.Expr | None]
) -> relax.Expr | None:
    """The sum that `sum_to_int32` and `sum_from_int32` handed over; None if they did not.

    Parameters
    ----------
    multiply : relax.Call
        The last operator of `sum_from_int32`.
    value_of : callable
        What a variable is bound to; None for a parameter.
    """
    steps, unit = multiply.args
    for operator, dtype in (("astype", "float32"), ("astype", "int32"), ("round", None)):
        call = value_of(steps) if isinstance(steps, relax.Var) else None
        if not _is_call(call, operator) or dtype not in (None, str(call.ty.dtype)):
            return None
        steps = call.args[0]
    call = value_of(steps) if isinstance(steps, relax.Var) else None
    if not _is_call(call, "divide") or not _same_constant(call.args[1], unit):
        return None
    return call.args[0]


def _is_call(call, operator: str) -> bool:
    return isinstance(call, relax.Call) and call.op == Op.get(f"relax.{operator}")


def _same_constant(a: relax.Expr, b: relax.Expr) -> bool:
    constants = isinstance(a, GenericConst) and isinstance(b, GenericConst)
    return constants and np.array_equal(a.value.numpy(), b.value.numpy())
