"""The float network behind a quantized one: its own weights, dequantized, and its own clamps.

What a quantized model gains or loses is measured against it where no other float model of the same
weights is at hand.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax import op as R

from ..lower.read import QuantizedConstant, main_of
from ..parts import joined
from ..qdq import DEQUANTIZE, QUANTIZE


def without_quantization(module: tvm.IRModule) -> tvm.IRModule:
    """The module in float32 between its inputs and outputs, which stay as they are.

    Parameters
    ----------
    module : tvm.IRModule
        QDQ Relax.

    Returns
    -------
    tvm.IRModule
        Weights are what their integers stand for. A quantize that is dequantized again is a clip to
        the range of its integers: in TFLite models that range is often all there is of a ReLU.
    """
    return _Copy(main_of(joined(module))).module()


class _Copy:
    """Copies ``main`` binding by binding; one use."""

    def __init__(self, function: relax.Function):
        self.function = function
        self.bb = relax.BlockBuilder()
        self.known: dict = {}  # old variable -> new expression
        self.clipped: dict = {}  # old variable bound to a quantize -> new float expression

    def module(self) -> tvm.IRModule:
        parameters = [relax.Var(p.name, p.ty) for p in self.function.params]
        self.known.update(zip(self.function.params, parameters, strict=True))
        with self.bb.function("main", parameters):
            with self.bb.dataflow():
                for block in self.function.body.blocks:
                    for binding in block.bindings:
                        self.known[binding.var] = self._value(binding.var, binding.value)
                output = self.bb.emit_output(self._copied(self.function.body.body))
            self.bb.emit_func_output(output)
        return relax.transform.DeadCodeElimination()(self.bb.get())

    def _value(self, var, value):
        if isinstance(value, relax.Call) and value.op == DEQUANTIZE:
            source, scale, zero_point = value.args[:3]
            if source in self.clipped:
                return self.clipped[source]
            if isinstance(source, GenericConst):
                axis = int(value.attrs["axis"])
                arrays = (each.value.numpy() for each in (source, scale, zero_point))
                array, scale, zero_point = arrays
                constant = QuantizedConstant(array, scale.astype(np.float64), axis, zero_point)
                return relax.const(constant.dequantized)
        if isinstance(value, relax.Call) and value.op == QUANTIZE:
            self.clipped[var] = self._clip(var, value)
        copied = self._copied(value)
        is_call = isinstance(copied, relax.Call | relax.TupleGetItem)
        return self.bb.emit(copied, name_hint=var.name) if is_call else copied

    def _clip(self, var, quantize):
        scale, zero_point = (float(arg.value.numpy().reshape(-1)[0]) for arg in quantize.args[1:3])
        limits = np.iinfo(str(quantize.attrs["out_dtype"]))
        bounds = [(end - zero_point) * scale for end in (limits.min, limits.max)]
        clip = R.clip(self._copied(quantize.args[0]), *bounds)
        return self.bb.emit(clip, name_hint=f"{var.name}_clip")

    def _copied(self, expression):
        if isinstance(expression, relax.Var):
            return self.known[expression]
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([self._copied(field) for field in expression.fields])
        if isinstance(expression, relax.TupleGetItem):
            return relax.TupleGetItem(self._copied(expression.tuple_value), expression.index)
        if isinstance(expression, relax.Call):
            arguments = [self._copied(argument) for argument in expression.args]
            return relax.Call(expression.op, arguments, expression.attrs, expression.ty_args)
        return expression
