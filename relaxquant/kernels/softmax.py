"""Softmax of a vector of uint8: the exponentials are a table of 256 floats.

Of 8-bit inputs the differences to the largest one take 256 values, so no exponential is computed
at run time. Sums run over the channels in order, so that every target gives the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm

from .intrinsics import InstructionSet
from .requantize import from_float_scalar
from .spec import TensorSpec
from .tir import T, arg, batch_extent, local, prim_func, store, tensor_arg

ENTRIES = 256


@dataclass(frozen=True)
class SoftmaxSpec:
    """Softmax over the channels of vectors of uint8; batch is None where symbolic."""

    batch: int | None
    data: TensorSpec
    out: TensorSpec


def exponentials(scale: float) -> np.ndarray:
    """``exp(-scale * d)`` for every difference d to the largest input: float32 (256,)."""
    return np.exp(-scale * np.arange(ENTRIES)).astype(np.float32)


def build(spec: SoftmaxSpec, isa: InstructionSet) -> tvm.tirx.PrimFunc:
    """Softmax as a PrimFunc.

    Arguments: data, `exponentials`, bounds (low, high, 1 / scale of the output), output.
    """

    def body():
        batch, channels = batch_extent(spec.batch), spec.data.channels
        data = tensor_arg("data", spec.data, batch)
        table = arg("table", (ENTRIES,), "float32")
        bounds = arg("bounds", (3,), "float32")
        output = tensor_arg("output", spec.out, batch)
        with T.parallel(batch) as n:
            largest, total = local(1, "int32"), local(1, "float32")
            whole = [0]

            def stored(c):
                return T.cast(data[tuple(spec.data.element_at(n, c, 0, 0))], "int32")

            store(largest, whole, T.int32(0))
            with T.serial(channels) as c:
                store(largest, whole, T.max(largest[0], stored(c)))
            store(total, whole, T.float32(0))
            with T.serial(channels) as c:
                store(total, whole, total[0] + table[largest[0] - stored(c)])
            with T.serial(channels) as c:
                value = table[largest[0] - stored(c)] * (bounds[2] / total[0])
                value = from_float_scalar(value, bounds[0], bounds[1], spec.out)
                store(output, spec.out.element_at(n, c, 0, 0), value)

    return prim_func(body)
