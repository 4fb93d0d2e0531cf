"""Functions of one quantized activation, element by element: read as a table of 256 values.

Whatever operators stand between a dequantize and a quantize, as long as they compute element by
element of that one activation and constants, the integer result is a function of the integer given.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tvm
from tvm import relax

from ..kernels.table import inputs_of
from .fixed_point import round_half_away
from .graph import Value

FUNCTIONS: dict[str, Callable] = {
    "abs": np.abs,
    "add": np.add,
    "divide": np.divide,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "exp": np.exp,
    "log": np.log,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "multiply": np.multiply,
    "negative": np.negative,
    "nn.relu": lambda x: np.maximum(x, 0),
    "nn.relu6": lambda x: np.clip(x, 0, 6),
    "nn.silu": lambda x: x / (1 + np.exp(-x)),
    "power": np.power,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "sqrt": np.sqrt,
    "square": np.square,
    "subtract": np.subtract,
    "tanh": np.tanh,
}


class NotUnary(Exception):
    """What is read is no function of one quantized activation."""


def function_table(expression, output: Value, known: dict, bound: dict, half_away: bool):
    """The activation that an expression is a function of, and its table; None if it is none.

    Parameters
    ----------
    expression : relax.Expr
        What is quantized.
    output : Value
        Its quantized form.
    known, bound : dict
        What the lowering knows of Relax variables, and what these are bound to.
    half_away : bool
        Round halves away from zero instead of to the even integer.

    Returns
    -------
    tuple of Value and numpy.ndarray, or None
        The table is uint8 (256,).
    """
    reader = _Function(known, bound)
    try:
        source = reader.source(expression)
        x = (inputs_of(source.spec) - source.zero_point) * source.scale
        with np.errstate(all="ignore"):
            y = np.broadcast_to(reader.value(expression, x), x.shape) / output.scale
    except NotUnary:
        return None
    if output.dtype != "uint8" or not np.isfinite(y).all():
        return None
    whole = round_half_away(y) if half_away else np.rint(y)
    return source, np.clip(whole + output.zero_point, 0, 255).astype(np.uint8)


class _Function:
    def __init__(self, known: dict, bound: dict):
        self.known, self.bound = known, bound

    def source(self, expression) -> Value:
        """The one activation of 8 bits that the expression depends on."""
        found: list[Value] = []
        self._collect(expression, found)
        if not found or any(value is not found[0] for value in found):
            raise NotUnary
        return found[0]

    def _collect(self, expression, found: list[Value]) -> None:
        value = self._quantized(expression)
        if value is not None:
            found.append(value)
            return
        expression = self._followed(expression)
        if isinstance(expression, relax.Call):
            for argument in self._operands(expression):
                self._collect(argument, found)
        elif not isinstance(expression, tvm.ir.GenericConst):
            raise NotUnary

    def value(self, expression, x: np.ndarray) -> np.ndarray:
        """The expression for every value ``x`` of the activation."""
        if self._quantized(expression) is not None:
            return x
        expression = self._followed(expression)
        if isinstance(expression, tvm.ir.GenericConst):
            array = expression.value.numpy()
            if array.size != 1:
                raise NotUnary
            return array.astype(np.float64).reshape(())
        operands = [self.value(argument, x) for argument in self._operands(expression)]
        name = expression.op.name.removeprefix("relax.")
        if name == "clip":
            return np.clip(operands[0], *(float(bound.value) for bound in expression.args[1:3]))
        if name == "nn.leakyrelu":
            slope = float(expression.attrs["alpha"])
            return np.where(operands[0] < 0, slope * operands[0], operands[0])
        if name not in FUNCTIONS:
            raise NotUnary
        return FUNCTIONS[name](*operands)

    def _operands(self, call) -> list:
        if not isinstance(call.op, tvm.ir.Op):
            raise NotUnary
        return list(call.args[:1] if call.op.name == "relax.clip" else call.args)

    def _quantized(self, expression) -> Value | None:
        known = self.known.get(expression) if isinstance(expression, relax.Var) else None
        quantized = isinstance(known, Value) and known.is_quantized and known.dtype == "uint8"
        return known if quantized else None

    def _followed(self, expression):
        while isinstance(expression, relax.Var) and expression in self.bound:
            expression = self.bound[expression]
            if isinstance(expression, relax.Var) and self._quantized(expression) is not None:
                break
        return expression
