"""What stands before ``R.quantize`` in QDQ Relax, where more is meant than the operator itself.

The operator rounds to the nearest integer of its type, halves to the even one. Two things are
written before it, in stock Relax, so that TVM's own pipeline computes the same:

- another rounding, of ``v = x * (1 / s)``: ``floor(v + 0.5) * s`` for ``"UPWARD"``,
  ``sign(v) * floor(abs(v) + 0.5) * s`` for ``"TONEAREST"``, ``floor(v) * s`` for ``"DOWN"``;
- fewer bits than the type holds: an ``R.clip`` to what the integers used stand for.

`relaxquant.quantize` writes the form with `round_before`, lowering reads it with `read_rounding`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import relax
from tvm.ir import GenericConst, Op
from tvm.relax import op as R

QUANTIZE, DEQUANTIZE = Op.get("relax.quantize"), Op.get("relax.dequantize")
TO_EVEN = "TOEVEN"
CLOSE = 1e-5  # relative; what 1 / s in float32 is off by is less


def round_before(
    bb: relax.BlockBuilder, var: relax.Var, scale: np.ndarray, rounding: str, name: str
) -> relax.Var:
    """Emit the rounding of `var` to multiples of `scale`; nothing for ``"TOEVEN"``."""
    if rounding == TO_EVEN:
        return var

    def emit(call: relax.Expr, what: str) -> relax.Var:
        return bb.emit(call, name_hint=f"{name}_{what}")

    half = relax.const(np.float32(0.5))
    steps = whole = emit(R.multiply(var, relax.const(np.float32(1 / scale))), "steps")
    if rounding == "TONEAREST":
        whole = emit(R.abs(whole), "abs")
    if rounding != "DOWN":
        whole = emit(R.add(whole, half), "half")
    whole = emit(R.floor(whole), "whole")
    if rounding == "TONEAREST":
        whole = emit(R.multiply(whole, emit(R.sign(steps), "sign")), "signed")
    return emit(R.multiply(whole, relax.const(scale)), "rounded")


@dataclass(frozen=True)
class Rounding:
    """What stands before an ``R.quantize``.

    Parameters
    ----------
    source : relax.Expr
        What is quantized.
    rounding : str
        ``"UPWARD"``, ``"TONEAREST"`` or ``"DOWN"``.
    clip : tuple of float, optional
        Bounds of the ``R.clip`` after the rounding.
    """

    source: relax.Expr
    rounding: str
    clip: tuple[float, float] | None


def read_rounding(
    expression: relax.Expr, scale: float, value_of: Callable[[relax.Var], relax.Expr | None]
) -> Rounding | None:
    """What `round_before` wrote before an ``R.quantize``; None if it rounds by itself.

    Parameters
    ----------
    expression : relax.Expr
        First argument of the ``R.quantize``.
    scale : float
        Its scale.
    value_of : callable
        What a variable is bound to; None for a parameter.
    """

    def step(operator: str, expression) -> list | None:
        """Arguments of the call that computes `expression`, if it is one of `operator`."""
        call = value_of(expression) if isinstance(expression, relax.Var) else expression
        is_call = isinstance(call, relax.Call) and isinstance(call.op, Op)
        return list(call.args) if is_call and call.op.name == f"relax.{operator}" else None

    clip = None
    if clipped := step("clip", expression):
        expression, clip = clipped[0], tuple(float(bound.value) for bound in clipped[1:3])
        if not _are_multiples(clip, scale):
            return None
    if not (product := step("multiply", expression)) or not _is_about(product[1], scale):
        return None
    signed = step("multiply", product[0])
    if not (floor := step("floor", signed[0] if signed else product[0])):
        return None
    rounding, steps = "DOWN", floor[0]
    if (half := step("add", steps)) and _is_about(half[1], 0.5):
        rounding, steps = "UPWARD", half[0]
    if signed:
        magnitude, sign = step("abs", steps), step("sign", signed[1])
        if rounding != "UPWARD" or not (magnitude and sign) or not magnitude[0].same_as(sign[0]):
            return None
        rounding, steps = "TONEAREST", sign[0]
    if not (source := step("multiply", steps)) or not _is_about(source[1], 1 / scale):
        return None
    return Rounding(source[0], rounding, clip)


def quantized_source(
    quantize: relax.Call, value_of: Callable[[relax.Var], relax.Expr | None]
) -> relax.Expr:
    """The tensor that an ``R.quantize`` is meant for, before rounding and clip."""
    expression = quantize.args[0]
    if quantize.args[1].value.numpy().size > 1:  # a layer's sum
        return expression
    scale, zero_point = (float(arg.value.numpy().reshape(())) for arg in quantize.args[1:3])
    if found := read_rounding(expression, scale, value_of):
        return found.source
    call = value_of(expression) if isinstance(expression, relax.Var) else None
    if isinstance(call, relax.Call) and call.op == Op.get("relax.clip"):
        low, high = (float(bound.value) / scale + zero_point for bound in call.args[1:3])
        nbit = np.log2(np.rint(high) + 1)
        if quantize.attrs["out_dtype"] == "int16":
            return call.args[0]
        if abs(low) < CLOSE and nbit < 8 and nbit == np.rint(nbit):
            return call.args[0]
    return expression


def _is_about(constant: relax.Expr, wanted: float) -> bool:
    if not isinstance(constant, GenericConst) or constant.value.numpy().size != 1:
        return False
    return bool(np.isclose(float(constant.value.numpy().reshape(())), wanted, rtol=CLOSE, atol=0))


def _are_multiples(bounds: tuple[float, float], scale: float) -> bool:
    """Whether clipping before the rounding is clipping after it."""
    steps = np.asarray(bounds) / scale
    return bool(np.all(np.abs(steps - np.rint(steps)) <= CLOSE * np.maximum(1, np.abs(steps))))
