"""Quantized constants of imported modules: one R.dequantize for each layer's weights, no other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax import op as R

from .rewriter import Rewriter, operator_of

LAYERS = ("relax.nn.conv2d", "relax.matmul")
WEIGHT = 1  # which argument of a layer
WEIGHT_DTYPES = ("int8", "uint8", "int16")
# Of constants, so that what importers compute of scales and bounds is constant, too.
FOLDED = {
    "relax.astype": np.asarray,
    "relax.isnan": np.isnan,
    "relax.where": np.where,
    "relax.multiply": np.multiply,
    "relax.subtract": np.subtract,
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
}


@dataclass(frozen=True)
class Dequantized:
    """``(array - zero_point) * scale``, with both 0-d, or 1-d along ``axis``."""

    array: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int

    def to_float(self) -> np.ndarray:
        """The values, float32: in float64 first, so that a bias keeps all its bits."""
        scale, zero_point = (
            _along(v, self.array, self.axis) for v in (self.scale, self.zero_point)
        )
        steps = self.array.astype(np.float64) - zero_point
        return (steps * scale.astype(np.float64)).astype(np.float32)

    def transposed(self, axes: list[int]) -> Dequantized:
        """With its axes permuted."""
        moved = axes.index(self.axis % self.array.ndim)
        array = np.ascontiguousarray(self.array.transpose(axes))
        return Dequantized(array, self.scale, self.zero_point, moved)


class Constants(Rewriter):
    """Folds what depends on quantized constants; lifts weights into parameters, see `normalise`."""

    def __init__(self, weights: dict[str, np.ndarray]):
        super().__init__()
        self.weights = weights
        self.parameters: list[relax.Var] = []

    def binding(self, var: relax.Var, value):
        """Known constants are kept out of the new function until an operator needs them."""
        name = operator_of(value)
        known = [self._known(arg) for arg in value.args] if name else []
        if name == "relax.reshape" and isinstance(known[0], np.ndarray):
            return relax.const(known[0].reshape([int(size) for size in var.ty.shape]))
        if name == "relax.quantize" and all(isinstance(k, np.ndarray) for k in known):
            return relax.const(quantize(*known, value.attrs))
        if name == "relax.dequantize" and all(isinstance(k, np.ndarray) for k in known):
            return Dequantized(known[0], *map(_flat, known[1:]), int(value.attrs["axis"]))
        if name == "relax.permute_dims" and isinstance(known[0], Dequantized):
            rank = known[0].array.ndim
            axes = value.attrs["axes"] or range(rank)[::-1]
            return known[0].transposed([int(axis) % rank for axis in axes])
        if name in FOLDED and all(isinstance(k, np.ndarray) for k in known):
            shape, dtype = [int(size) for size in var.ty.shape], str(var.ty.dtype)
            return relax.const(FOLDED[name](*known).reshape(shape).astype(dtype))
        if name in LAYERS and isinstance(known[WEIGHT], Dequantized):
            weight = self._weight(known[WEIGHT], var.name)
            arguments = [self.argument(value.args[0]), weight]
            return self.emit(relax.Call(value.op, arguments, value.attrs, value.ty_args), var)
        if name in ("relax.quantize", "relax.dequantize"):
            return self.emit(self._with_scalars(value), var)
        if isinstance(value, relax.Var) and isinstance(self.new.get(value), Dequantized):
            return self.new[value]
        return super().binding(var, value)

    def argument(self, expression):
        """Dequantized constants that are no layer's weights are read as float32."""
        argument = super().argument(expression)
        return relax.const(argument.to_float()) if isinstance(argument, Dequantized) else argument

    def finished(self, function: relax.Function) -> relax.Function:
        """With the weights as its last parameters."""
        parameters = [*function.params, *self.parameters]
        new = relax.Function(parameters, function.body, function.ret_ty)
        return new.with_attrs(function.attrs)

    def _known(self, expression):
        known = self.new.get(expression) if isinstance(expression, relax.Var) else expression
        return known.value.numpy() if isinstance(known, GenericConst) else known

    def _weight(self, weight: Dequantized, layer: str) -> relax.Expr:
        if str(weight.array.dtype) not in WEIGHT_DTYPES:
            return relax.const(weight.to_float())
        name = f"{layer}_weight_q{len(self.weights)}"
        parameter = relax.Var(name, relax.TensorType(weight.array.shape, str(weight.array.dtype)))
        self.weights[name] = weight.array
        self.parameters.append(parameter)
        constants = (relax.const(weight.scale), relax.const(weight.zero_point))
        call = R.dequantize(parameter, *constants, axis=weight.axis, out_dtype="float32")
        return self.bb.emit(call, name_hint=f"{layer}_weight")

    def _with_scalars(self, call: relax.Call) -> relax.Call:
        """One scale for a tensor is a scalar, whatever shape it came in."""
        data, *parameters = (self.argument(arg) for arg in call.args)
        arrays = [self._known(parameter) for parameter in parameters]
        if all(isinstance(array, np.ndarray) for array in arrays):
            parameters = [relax.const(_flat(array)) for array in arrays]
        return relax.Call(call.op, [data, *parameters], call.attrs, call.ty_args)


def quantize(array: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, attrs) -> np.ndarray:
    """``R.quantize`` of a constant: divided in float32, halves to the even integer, saturated."""
    axis, dtype = int(attrs["axis"]), str(attrs["out_dtype"])
    scale, zero_point = (_along(_flat(v), array, axis) for v in (scale, zero_point))
    steps = np.rint(array.astype(np.float32) / scale.astype(np.float32)) + zero_point
    ends = np.iinfo(dtype)
    return np.clip(steps, ends.min, ends.max).astype(dtype)


def _along(values: np.ndarray, array: np.ndarray, axis: int) -> np.ndarray:
    """Values for each index of an axis, in a shape that broadcasts over the array."""
    if values.ndim == 0:
        return values
    shape = [1] * array.ndim
    shape[axis] = -1
    return values.reshape(shape)


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(()) if values.size == 1 else values.reshape(-1)
