"""Memory-bound kernels: residual add, concatenation, and conversion of layout and precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm

from .fixed_point import FLOAT, TFLITE
from .intrinsics import InstructionSet
from .requantize import from_float, from_float_scalar, fused_multiply_add, to_float, to_float_scalar
from .spec import TensorSpec
from .tir import (
    BLOCK,
    T,
    arg,
    batch_extent,
    float_function,
    prim_func,
    rounded_product,
    store,
    tensor_arg,
    unfused_add,
)


@dataclass(frozen=True)
class AddSpec:
    """``out = clip(a * scale_a + b * scale_b)``; batch is None where symbolic."""

    batch: int | None
    a: TensorSpec
    b: TensorSpec
    out: TensorSpec


@dataclass(frozen=True)
class MulSpec:
    """``out = clip(a * b * scale)``; ``b`` may be one pixel that all of ``a`` share."""

    batch: int | None
    a: TensorSpec
    b: TensorSpec
    out: TensorSpec


@dataclass(frozen=True)
class ConcatSpec:
    """Concatenation along the channels, each input with a scale of its own.

    ``requantize`` is one of `fixed_point.REQUANTIZE`: TFLite computes ``x * scale + offset`` in
    float32 of what is stored, and rounds halves away from zero.
    """

    batch: int | None
    inputs: tuple[TensorSpec, ...]
    out: TensorSpec
    requantize: str = FLOAT


def tflite_concat_parameters(
    inputs: list[tuple[float, int]], scale: float, low: float, high: float
) -> np.ndarray:
    """float32 (2 + 2 * inputs,): low, high, then scale and offset of each input.

    Parameters
    ----------
    inputs : list of (scale, zero point)
        Of the inputs.
    scale : float
        Of the output.
    low, high : float
        Bounds before the output's zero point is added.
    """
    inverse = np.float32(1) / np.float32(scale)
    factors = [np.float32(each) * inverse for each, _ in inputs]
    offsets = [-np.float32(zero) * f for (_, zero), f in zip(inputs, factors, strict=True)]
    pairs = np.stack([factors, offsets], axis=1).reshape(-1)
    return np.array([low, high, *pairs], np.float32)


def scales_and_bounds(scales: list[float], low: float, high: float) -> np.ndarray:
    """float32 (2 + inputs,): low, high, then output units for one step of each input."""
    return np.array([low, high, *scales], np.float32)


def build_add(spec: AddSpec, isa: InstructionSet) -> tvm.tirx.PrimFunc:
    """Residual add as a PrimFunc. Arguments: a, b, scales_and_bounds, output."""

    def body():
        batch, lanes = batch_extent(spec.batch), isa.lanes
        a = tensor_arg("a", spec.a, batch)
        b = tensor_arg("b", spec.b, batch)
        bounds = arg("bounds", (4,), "float32")
        output = tensor_arg("output", spec.out, batch)
        scale_a, scale_b = (T.broadcast(bounds[i], lanes) for i in (2, 3))
        for at in each_vector(batch, spec.out, lanes):
            value = load_vector(a, spec.a, at, lanes) * scale_a
            addend = load_vector(b, spec.b, at, lanes)
            value = fused_multiply_add(addend, scale_b, value, lanes)
            stored = from_float(value, bounds[0], bounds[1], spec.out, isa)
            store(output, spec.out.vector_at(*at, lanes), stored)

    return prim_func(body)


def build_mul(spec: MulSpec, isa: InstructionSet) -> tvm.tirx.PrimFunc:
    """Product as a PrimFunc. Arguments: a, b, bounds (low, high, scale of the product), output."""

    def body():
        batch, lanes = batch_extent(spec.batch), isa.lanes
        a = tensor_arg("a", spec.a, batch)
        b = tensor_arg("b", spec.b, batch)
        bounds = arg("bounds", (3,), "float32")
        output = tensor_arg("output", spec.out, batch)
        for at in each_vector(batch, spec.out, lanes):
            factor = load_vector(b, spec.b, at_broadcast(spec.b, spec.out, at), lanes)
            value = load_vector(a, spec.a, at, lanes) * factor * T.broadcast(bounds[2], lanes)
            stored = from_float(value, bounds[0], bounds[1], spec.out, isa)
            store(output, spec.out.vector_at(*at, lanes), stored)

    return prim_func(body)


def at_broadcast(spec: TensorSpec, out: TensorSpec, at: tuple) -> tuple:
    """An index of ``out`` in a tensor of its size, or of one pixel that all of ``out`` share."""
    n, channel, h, w = at
    return n, channel, h if spec.height == out.height else 0, w if spec.width == out.width else 0


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
        tflite = spec.requantize == TFLITE
        bounds = arg("bounds", (2 + len(inputs) * (2 if tflite else 1),), "float32")
        output = tensor_arg("output", spec.out, batch)
        first = 0
        for i, (tensor, data) in enumerate(zip(spec.inputs, inputs, strict=True)):
            copy = _copy_vectors if first % BLOCK == 0 else _copy_channels
            scale = _TFLiteScale(bounds, 2 + 2 * i) if tflite else _Scale(bounds, 2 + i)
            copy(batch, tensor, data, scale, output, spec.out, first, isa)
            first += tensor.channels

    return prim_func(body)


class _Scale:
    """Brings an input to the output's steps: float32, rounded as the output says."""

    def __init__(self, bounds, index: int):
        self.bounds, self.index = bounds, index

    def vector(self, stored, tensor: TensorSpec, out: TensorSpec, isa: InstructionSet):
        """What is stored of a vector of the input."""
        value = to_float(stored, tensor, isa.lanes) * T.broadcast(
            self.bounds[self.index], isa.lanes
        )
        return from_float(value, self.bounds[0], self.bounds[1], out, isa)

    def scalar(self, stored, tensor: TensorSpec, out: TensorSpec):
        """What is stored of one element of the input."""
        value = to_float_scalar(stored, tensor) * self.bounds[self.index]
        return from_float_scalar(value, self.bounds[0], self.bounds[1], out)


class _TFLiteScale(_Scale):
    """The same as TFLite's concatenation does it."""

    def vector(self, stored, tensor: TensorSpec, out: TensorSpec, isa: InstructionSet):
        """What is stored of a vector of the input."""
        lanes = isa.lanes
        narrow = f"float32x{lanes}"
        factor, offset = (T.broadcast(self.bounds[self.index + i], lanes) for i in (0, 1))
        value = unfused_add(rounded_product(stored, factor, lanes), offset, narrow)
        value = float_function("llvm.round", narrow, value)
        return from_float(value, self.bounds[0], self.bounds[1], out, isa)

    def scalar(self, stored, tensor: TensorSpec, out: TensorSpec):
        """What is stored of one element of the input."""
        factor, offset = (self.bounds[self.index + i] for i in (0, 1))
        value = unfused_add(rounded_product(stored, factor), offset, "float32")
        value = float_function("llvm.round", "float32", value)
        return from_float_scalar(value, self.bounds[0], self.bounds[1], out)


def _copy_vectors(batch, tensor, data, scale, output, out, first: int, isa) -> None:
    lanes = isa.lanes
    for n, channel, h, w in each_vector(batch, tensor, lanes):
        stored = data[tuple(tensor.vector_at(n, channel, h, w, lanes))]
        value = scale.vector(stored, tensor, out, isa)
        store(output, out.vector_at(n, channel + first, h, w, lanes), value)


def _copy_channels(batch, tensor, data, scale, output, out, first: int, isa) -> None:
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
        store(output, out.element_at(n, c + first, h, w), scale.scalar(element, tensor, out))
