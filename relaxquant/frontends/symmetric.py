"""A quantized network with all zero points forced to 0: what they cost, and what they are worth.

"Quantization Story" (TVM forum) forced TFLite's parameters symmetric to see what asymmetric ones
cost in time. Here the integers are computed anew, so that the price in accuracy is seen, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax import op as R

from ..parts import joined
from .rewriter import Rewriter, is_scalar, operator_of

INT8 = np.iinfo(np.int8)
CONVOLUTION = 4  # rank of its weights
DEQUANTIZE, QUANTIZE = "relax.dequantize", "relax.quantize"


@dataclass(frozen=True)
class Steps:
    """How integers stand for values: ``scale`` times themselves, no zero point."""

    dtype: str
    scale: float

    @property
    def arguments(self) -> list[relax.Expr]:
        """Scale and zero point as Relax takes them."""
        return [relax.const(np.float32(self.scale)), relax.const(np.int32(0))]


def forced_symmetric(module: tvm.IRModule, per_channel: bool = False) -> tvm.IRModule:
    """The network quantized again with zero points of 0, over the ranges it has.

    Parameters
    ----------
    module : tvm.IRModule
        QDQ Relax.
    per_channel : bool
        Give convolutions whose weights had zero points a scale for each output channel. One for the
        whole tensor gets coarser without a zero point, which small weights do not survive.

    Returns
    -------
    tvm.IRModule
        QDQ Relax with the same inputs and outputs. Activations of a range that starts at 0 are
        uint8 with the scale they had; others int8, of the smallest scale that covers the range.
        Weights with zero points become int8 over their largest magnitude, per tensor or channel as
        they were if not told otherwise; int8 ones without stay. Biases are float constants, which
        lowering rounds to whole steps of a layer's sum. What is returned keeps its integers, and so
        does an activation that something else than a dequantize reads.
    """
    return _Symmetric(per_channel).rewrite(joined(module))


class _Symmetric(Rewriter):
    def __init__(self, per_channel: bool):
        super().__init__()
        self.per_channel = per_channel

    def rewrite(self, module: tvm.IRModule) -> tvm.IRModule:
        self.steps: dict[relax.Var, Steps] = {}  # a quantized variable -> how it is quantized now
        self.kept = _read_otherwise(module["main"])
        return super().rewrite(module)

    def binding(self, var: relax.Var, value):
        operator = operator_of(value)
        if operator == QUANTIZE and is_scalar(value.args[1]) and var not in self.kept:
            self.steps[var] = _steps(value, str(value.attrs["out_dtype"]))
            return self._quantized(self.argument(value.args[0]), self.steps[var], var)
        if operator == DEQUANTIZE:
            return self._dequantize(var, value)
        return super().binding(var, value)

    def _dequantize(self, var: relax.Var, value: relax.Call):
        source = value.args[0]
        if isinstance(source, GenericConst):
            return self._constant(var, value)
        if source in self.steps:
            return self._dequantized(self.argument(source), self.steps[source], var)
        # An input, or what is returned, too: its integers are a caller's, and only then made ours.
        floats = super().binding(var, value)
        if not is_scalar(value.args[1]):
            return floats
        steps = _steps(value, source.ty.dtype.dtype)
        return self._dequantized(self._quantized(floats, steps, var), steps, var)

    def _constant(self, var: relax.Var, value: relax.Call):
        """Weights, their integers symmetric; a bias (int32) as floats."""
        integers, _, zero_point = (each.value.numpy() for each in value.args[:3])
        if integers.dtype.itemsize > 1:
            return relax.const(_floats(value).astype(np.float32))
        if integers.dtype == np.int8 and not zero_point.any():
            return self.emit(value, var)
        axis = int(value.attrs["axis"])
        by_channel = zero_point.size > 1 or (self.per_channel and integers.ndim == CONVOLUTION)
        array, steps = _symmetric(_floats(value), axis if by_channel else None)
        parts = [relax.const(each) for each in (array, steps, np.int32(0))]
        return self.emit(R.dequantize(*parts, axis=axis), var)

    def _quantized(self, floats, steps: Steps, like: relax.Var):
        return self.emit(R.quantize(floats, *steps.arguments, out_dtype=steps.dtype), like)

    def _dequantized(self, integers, steps: Steps, like: relax.Var):
        return self.emit(R.dequantize(integers, *steps.arguments), like)


def _floats(dequantize: relax.Call) -> np.ndarray:
    """What the integers of a constant stand for, float64."""
    integers, scale, zero_point = (each.value.numpy() for each in dequantize.args[:3])
    axis = int(dequantize.attrs["axis"])
    shape = [-1 if i == axis else 1 for i in range(integers.ndim)]
    scale, zero_point = (
        each.reshape(shape if each.size > 1 else []).astype(np.float64)
        for each in (scale, zero_point)
    )
    return (integers - zero_point) * scale


def _symmetric(floats: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """int8 of the largest magnitude and its scale, float32; with an axis one for each index."""
    others = None if axis is None else tuple(i for i in range(floats.ndim) if i != axis)
    most = np.abs(floats).max(axis=others, keepdims=axis is not None)
    steps = np.where(most > 0, most / INT8.max, 1.0).astype(np.float32)
    array = np.clip(np.rint(floats / steps), -INT8.max, INT8.max).astype(np.int8)
    return array, steps.reshape(() if axis is None else -1)


def _steps(call: relax.Call, dtype: str) -> Steps:
    """What covers the range of a quantize, or of a dequantize of `dtype`, without zero point."""
    scale, zero_point = (float(each.value.numpy().reshape(())) for each in call.args[1:3])
    limits = np.iinfo(dtype)
    low, high = ((end - zero_point) * scale for end in (limits.min, limits.max))
    if limits.bits > 8:
        return Steps(dtype, scale)
    if low >= 0:
        return Steps("uint8", high / np.iinfo(np.uint8).max)
    return Steps("int8", max(low / INT8.min, high / INT8.max))


def _read_otherwise(main: relax.Function) -> set[relax.Var]:
    """Variables that something else than a dequantize reads, the result among them."""
    found: set[relax.Var] = set()

    def visit(expression) -> None:
        if isinstance(expression, relax.Var):
            found.add(expression)
        elif isinstance(expression, relax.Tuple):
            for each in expression.fields:
                visit(each)
        elif isinstance(expression, relax.TupleGetItem):
            visit(expression.tuple_value)
        elif isinstance(expression, relax.Call) and operator_of(expression) != DEQUANTIZE:
            for each in expression.args:
                visit(each)

    for block in main.body.blocks:
        for binding in block.bindings:
            visit(binding.value)
    visit(main.body.body)
    return found
