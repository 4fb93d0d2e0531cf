"""``main`` of an imported module written anew, binding by binding."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.ir import GenericConst, Op

from ..errors import ModelError


class Rewriter:
    """Emits ``main`` again, binding by binding."""

    def __init__(self):
        self.new: dict[relax.Var, object] = {}  # what each variable became

    def rewrite(self, module: tvm.IRModule) -> tvm.IRModule:
        """The module with a new ``main``."""
        main, self.bb = module["main"], relax.BlockBuilder()
        result = main.body.body
        parameters = list(main.params)
        with self.bb.function("main", parameters, attrs=dict(main.attrs or {})):
            with self.bb.dataflow():
                for block in main.body.blocks:
                    for binding in block.bindings:
                        _check(binding)
                        self.new[binding.var] = self.binding(binding.var, binding.value)
                output = self.bb.emit_output(self.argument(result))
            self.bb.emit_func_output(output)
        new = module.clone()
        (function,) = self.bb.get().functions.values()
        function = self.finished(function).with_attr("global_symbol", "main")
        new["main"] = function
        return new

    def finished(self, function: relax.Function) -> relax.Function:
        """A hook for what is to be done to the whole function."""
        return function

    def binding(self, var: relax.Var, value):
        """What stands for `var`: a variable, or what is known of a constant."""
        return self.emit(self.replaced(value), var)

    def emit(self, value, like: relax.Var):
        """Emit under the name that it had."""
        return self.bb.emit(value, name_hint=like.name)

    def replaced(self, value):
        """An expression in terms of the new variables."""
        if isinstance(value, relax.Call):
            arguments = [self.argument(arg) for arg in value.args]
            return relax.Call(value.op, arguments, value.attrs, value.ty_args)
        if isinstance(value, relax.TupleGetItem):
            return relax.TupleGetItem(self.argument(value.tuple_value), value.index)
        return self.argument(value)

    def argument(self, expression):
        """An argument in terms of the new variables."""
        if isinstance(expression, relax.Var):
            return self.new.get(expression, expression)
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([self.argument(field) for field in expression.fields])
        return expression


def _check(binding) -> None:
    """ModelError for what is not straight-line code over tensors of known shape."""
    if isinstance(binding, relax.MatchCast):
        raise ModelError(
            f"the shape of {binding.var.name} is computed at run time: export the model with "
            "static shapes, or give them (from_onnx: shapes=)"
        )
    if isinstance(binding.value, relax.If):
        raise ModelError(
            f"{binding.var.name} is the result of control flow, which kernels cannot be chosen "
            "for: export the model with the branch that is taken"
        )


def operator_of(value) -> str | None:
    """Name of the operator that an expression calls; None for other expressions."""
    is_call = isinstance(value, relax.Call) and isinstance(value.op, Op)
    return value.op.name if is_call else None


def is_scalar(expression) -> bool:
    """Whether an expression is a constant of one element."""
    return isinstance(expression, GenericConst) and expression.value.numpy().size == 1
