"""Addition and multiplication of quantized activations in integers, as TFLite's kernels do them.

Addition brings both inputs to a common scale with 20 bits to spare, each by a 31-bit multiplier
and two roundings, adds them, and brings the sum to the output's scale by a third one. A product
needs one multiplier. What stands in `elementwise` does the same in float32 with one rounding; the
two differ in the last bit now and then.

Source: our own code for the arithmetic of TensorFlow Lite's ``kernels/internal/reference/add.h``
and ``mul.h``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm

from . import fixed_point
from .elementwise import at_broadcast, each_vector
from .intrinsics import InstructionSet
from .requantize import clip_vector
from .spec import TensorSpec
from .tir import T, arg, batch_extent, prim_func, splat, store, tensor_arg

HEADROOM = 20  # bits that TFLite shifts the operands of a sum to the left
FACTOR = 3  # parameters of one multiplier


@dataclass(frozen=True)
class BinarySpec:
    """A sum or product of uint8 activations; ``b`` may be one pixel that all of ``a`` share.

    ``kind`` is ``"add"`` or ``"mul"``; batch is None where symbolic.
    """

    kind: str
    batch: int | None
    a: TensorSpec
    b: TensorSpec
    out: TensorSpec


def parameters(low: float, high: float, factors: list[tuple[int, int]]) -> np.ndarray:
    """int32: low, high, then multiplier and shifts of each factor for `fixed_point.multiply`.

    Parameters
    ----------
    low, high : float
        Integers: bounds before the zero point is added.
    factors : list of (multiplier, shift)
        For a sum those of ``a``, ``b`` and the sum; for a product its own.
    """
    shifts = [[m, max(-shift, 0) - 1, max(shift, 0)] for m, shift in factors]
    return np.array([low, high, *np.ravel(shifts)]).astype(np.int32)


def build(spec: BinarySpec, isa: InstructionSet) -> tvm.tirx.PrimFunc:
    """The operator as a PrimFunc. Arguments: a, b, `parameters`, output."""

    def body():
        batch, lanes = batch_extent(spec.batch), isa.lanes
        a = tensor_arg("a", spec.a, batch)
        b = tensor_arg("b", spec.b, batch)
        count = 3 if spec.kind == "add" else 1
        given = arg("parameters", (2 + FACTOR * count,), "int32")
        output = tensor_arg("output", spec.out, batch)
        for at in each_vector(batch, spec.out, lanes):
            x = _steps(a, spec.a, at, lanes)
            y = _steps(b, spec.b, at_broadcast(spec.b, spec.out, at), lanes)
            if spec.kind == "add":
                headroom = splat(HEADROOM, "int32", lanes)
                x = _scaled(T.shift_left(x, headroom), given, 0, lanes)
                y = _scaled(T.shift_left(y, headroom), given, 1, lanes)
            value = x + y if spec.kind == "add" else x * y
            value = _scaled(value, given, count - 1, lanes)
            value = clip_vector(value, given[0], given[1], lanes)
            value = value + splat(spec.out.zero_point, "int32", lanes)
            stored = T.cast(value, f"{spec.out.dtype}x{lanes}")
            store(output, spec.out.vector_at(*at, lanes), stored)

    return prim_func(body)


def _steps(data, spec: TensorSpec, at: tuple, lanes: int):
    """A vector of ``data`` less its zero point, as int32."""
    stored = T.cast(data[tuple(spec.vector_at(*at, lanes))], f"int32x{lanes}")
    return stored - splat(spec.zero_point, "int32", lanes)


def _scaled(x, given, factor: int, lanes: int):
    multiplier, right, left = (
        T.broadcast(given[2 + FACTOR * factor + i], lanes) for i in range(FACTOR)
    )
    return fixed_point.multiply(x, multiplier, right, lanes, left)
