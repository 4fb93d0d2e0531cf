"""Any function of one quantized activation, as a table of its 256 values.

A look-up costs a load whatever the function is, so that sigmoid, tanh or hard swish in integers
take as long as a copy. The table is made at compile time, by whoever knows scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm

from .image import fill_halo
from .intrinsics import InstructionSet
from .spec import TensorSpec
from .tir import T, arg, batch_extent, prim_func, store, tensor_arg

ENTRIES = 256


@dataclass(frozen=True)
class TableSpec:
    """``out = table[data]`` for uint8, or int8 at the interface; batch is None where symbolic."""

    batch: int | None
    data: TensorSpec
    out: TensorSpec


def inputs_of(data: TensorSpec) -> np.ndarray:
    """The values that stored data can have, in the order of a table: int64 (256,)."""
    first = np.iinfo(data.dtype).min
    return np.arange(first, first + ENTRIES)


def build(spec: TableSpec, isa: InstructionSet) -> tvm.tirx.PrimFunc:
    """The look-up as a PrimFunc. Arguments: data, table (of the output's dtype), output."""

    def body():
        batch, out = batch_extent(spec.batch), spec.out
        data = tensor_arg("data", spec.data, batch)
        table = arg("table", (ENTRIES,), out.dtype)
        output = tensor_arg("output", out, batch)
        first = int(inputs_of(spec.data)[0])
        if out.halo:
            fill_halo(out, batch, output)
        with T.parallel(batch * out.blocks * out.height) as task:
            n, block = task // (out.blocks * out.height), task // out.height % out.blocks
            h = task % out.height
            with T.serial(out.width) as w, T.serial(out.block) as c:
                channel = block * out.block + c
                source = T.min(channel, spec.data.channels - 1)
                x = data[tuple(spec.data.element_at(n, source, h, w))]
                value = table[T.cast(x, "int32") - first]
                store(output, out.element_at(n, channel, h, w), value)

    return prim_func(body)
