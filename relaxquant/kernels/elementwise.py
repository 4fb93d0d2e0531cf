"""Memory-bound kernels: residual add, concatenation, and conversion of layout and precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm

from .intrinsics import InstructionSet
from .requantize import from_float, from_float_scalar, fused_multiply_add, to_float, to_float_scalar
from .spec import TensorSpec
from .tir import BLOCK, T, arg, batch_extent, prim_func, store


@dataclass(frozen=True)
class AddSpec:
    """``out = clip(a * scale_a + b * scale_b)``; batch is None where symbolic."""

    batch: int | None
    a: TensorSpec
    b: TensorSpec
    out: TensorSpec


@dataclass(frozen=True)
class ConcatSpec:
    """Concatenation along the channels, each input with a scale of its own."""

    batch: int | None
    inputs: tuple[TensorSpec, ...]
    out: TensorSpec


def scales_and_bounds(scales: list[float], low: float, high: float) -> np.ndarray:
    """float32 (2 + inputs,): low, high, then output units for one step of each input."""
    return np.array([low, high, *scales], np.float32)


def build_add(spec: AddSpec, isa: InstructionSet) -> tvm.tirx.PrimFunc:
    """Residual add as a PrimFunc. Arguments: a, b, scales_and_bounds, output."""

    def body():
        batch, lanes = batch_extent(spec.batch), isa.lanes
        a = arg("a", spec.a.physical_shape(batch), spec.a.dtype)
        b = arg("b", spec.b.physical_shape(batch), spec.b.dtype)
        bounds = arg("bounds", (4,), "float32")
        output = arg("output", spec.out.physical_shape(batch), spec.out.dtype)
        scale_a, scale_b = (T.broadcast(bounds[i], lanes) for i in (2, 3))
        for at in each_vector(batch, spec.out, lanes):
            value = load_vector(a, spec.a, at, lanes) * scale_a
            addend = load_vector(b, spec.b, at, lanes)
            value = fused_multiply_add(addend, scale_b, value, lanes)
            stored = from_float(value, bounds[0], bounds[1], spec.out, isa)
            store(output, spec.out.vector_at(*at, lanes), stored)

    return prim_func(body)


def each_vector(batch, out: TensorSpec, lanes: int):
    """Loop over all vectors of a tensor in the order of its memory, parallel over rows.

    Yields (image, first channel, row, column) once, for `TensorSpec.vector_at` of every tensor.
    """
    with T.parallel(batch * out.blocks * out.height) as task:
        n, block = task // (out.blocks * out.height), task // out.height % out.blocks
        with (
            T.serial(out.width) as w,
            T.serial(out.block // BLOCK) as part,
            T.unroll(BLOCK // lanes) as vector,
        ):
            channel = block * out.block + part * BLOCK + vector * lanes
            yield n, channel, task % out.height, w


def load_vector(data, spec: TensorSpec, at: tuple, lanes: int):
    """A vector of ``data`` as floats, from an index that `each_vector` yields."""
    return to_float(data[tuple(spec.vector_at(*at, lanes))], spec, lanes)


def build_concat(spec: ConcatSpec, isa: InstructionSet) -> tvm.tirx.PrimFunc:
    """Concatenation as a PrimFunc. Arguments: the inputs, scales_and_bounds, output.

    An input that starts on a multiple of 16 channels is moved by vectors, any other channel by
    channel. What the former writes past its own channels, the next input overwrites.
    """

    def body():
        batch = batch_extent(spec.batch)
        inputs = [
            arg(f"input{i}", tensor.physical_shape(batch), tensor.dtype)
            for i, tensor in enumerate(spec.inputs)
        ]
        bounds = arg("bounds", (2 + len(inputs),), "float32")
        output = arg("output", spec.out.physical_shape(batch), spec.out.dtype)
        first = 0
        for i, (tensor, data) in enumerate(zip(spec.inputs, inputs, strict=True)):
            copy = _copy_vectors if first % BLOCK == 0 else _copy_channels
            copy(batch, tensor, data, (bounds, i + 2), output, spec.out, first, isa)
            first += tensor.channels

    return prim_func(body)


def _copy_vectors(batch, tensor, data, scale, output, out, first: int, isa) -> None:
    (bounds, index), lanes = scale, isa.lanes
    for n, channel, h, w in each_vector(batch, tensor, lanes):
        value = load_vector(data, tensor, (n, channel, h, w), lanes)
        value = value * T.broadcast(bounds[index], lanes)
        stored = from_float(value, bounds[0], bounds[1], out, isa)
        store(output, out.vector_at(n, channel + first, h, w, lanes), stored)


def _copy_channels(batch, tensor, data, scale, output, out, first: int, isa) -> None:
    bounds, index = scale
    last = tensor.channels - 1
    # Padding must be finite: the last input repeats its last channel to the end of the block.
    is_last = first + tensor.channels == out.channels
    count = out.padded_channels - first if is_last else tensor.channels
    with (
        T.parallel(batch * tensor.height) as task,
        T.serial(count) as c,
        T.serial(tensor.width) as w,
    ):
        n, h = task // tensor.height, task % tensor.height
        element = data[tuple(tensor.element_at(n, T.min(c, last), h, w))]
        value = to_float_scalar(element, tensor) * bounds[index]
        stored = from_float_scalar(value, bounds[0], bounds[1], out)
        store(output, out.element_at(n, c + first, h, w), stored)
