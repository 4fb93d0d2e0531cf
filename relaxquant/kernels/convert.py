"""Conversion of layout and precision: quantize, dequantize, requantize, pack, unpack, clip.

One kernel does all of them, because a pass over memory costs the same whatever it computes. Two
cases are vectorised, as they lie on every network's path: between layouts whose blocks are whole
16s of channels, and a float image in plain NCHW to uint8 NCHW4c for the first convolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm

from .elementwise import each_vector, load_vector
from .intrinsics import InstructionSet
from .requantize import clip_vector, from_float, from_float_scalar, to_float_scalar
from .spec import TensorSpec
from .tir import BLOCK, T, arg, batch_extent, lanes_at, prim_func, splat, store


@dataclass(frozen=True)
class ConvertSpec:
    """``out = clip((data - zero_point) * scale)`` in the output's layout and precision."""

    batch: int | None
    data: TensorSpec
    out: TensorSpec


def build(spec: ConvertSpec, isa: InstructionSet) -> tvm.tirx.PrimFunc:
    """The conversion as a PrimFunc.

    Arguments: data, bounds (low, high, output units for one step of the input), output.
    """

    def body():
        batch = batch_extent(spec.batch)
        data = arg("data", spec.data.physical_shape(batch), spec.data.dtype)
        bounds = arg("bounds", (3,), "float32")
        output = arg("output", spec.out.physical_shape(batch), spec.out.dtype)
        emit = _by_channel
        if spec.data.block % BLOCK == spec.out.block % BLOCK == 0:
            emit = _blocked
        elif _is_image(spec, isa):
            emit = _image_to_nchw4c
        emit(spec, isa, batch, data, bounds, output)

    return prim_func(body)


def _is_image(spec: ConvertSpec, isa: InstructionSet) -> bool:
    to_quads = spec.out.block == 4 and spec.out.blocks == 1 and spec.out.dtype == "uint8"
    from_plain = spec.data.block == 1 and spec.data.dtype == "float32"
    return to_quads and from_plain and spec.data.width >= isa.lanes


def _blocked(spec: ConvertSpec, isa: InstructionSet, batch, data, bounds, output) -> None:
    for at in each_vector(batch, spec.out, isa.lanes):
        value = load_vector(data, spec.data, at, isa.lanes) * T.broadcast(bounds[2], isa.lanes)
        stored = from_float(value, bounds[0], bounds[1], spec.out, isa)
        store(output, spec.out.vector_at(*at, isa.lanes), stored)


def _image_to_nchw4c(spec, isa: InstructionSet, batch, data, bounds, output) -> None:
    """A vector of pixels at a time: each channel's byte is shifted into the pixel's 32-bit word."""
    lanes, height, width = isa.lanes, spec.data.height, spec.data.width
    flat = T.decl_buffer((batch, height, 4 * width), "uint8", data=output.data)
    with (
        T.parallel(batch * height) as task,
        T.serial(-(-width // lanes)) as step,
    ):
        n, h = task // height, task % height
        # The last vector of a row is moved back to end with the row: some pixels twice, none lost.
        first = T.min(step * lanes, width - lanes)
        pixels = lanes_at(first, lanes)
        word = splat(0, "int32", lanes)
        for c in range(spec.data.channels):
            value = data[n, c, h, pixels] * T.broadcast(bounds[2], lanes)
            byte = isa.round_to_int(clip_vector(value, bounds[0], bounds[1], lanes))
            byte = byte + splat(spec.out.zero_point, "int32", lanes)
            word = T.bitwise_or(word, T.shift_left(byte, splat(8 * c, "int32", lanes)))
        store(
            flat, [n, h, lanes_at(4 * first, 4 * lanes)], T.reinterpret(f"uint8x{4 * lanes}", word)
        )


def _by_channel(spec: ConvertSpec, isa, batch, data, bounds, output) -> None:
    blocks, height = spec.out.blocks, spec.out.height
    with T.parallel(batch * blocks * height) as task:
        n, block, h = task // (blocks * height), task // height % blocks, task % height
        with T.serial(spec.out.width) as w, T.serial(spec.out.block) as c:
            channel = block * spec.out.block + c
            source = T.min(channel, spec.data.channels - 1)
            element = data[tuple(spec.data.element_at(n, source, h, w))]
            value = to_float_scalar(element, spec.data) * bounds[2]
            stored = from_float_scalar(value, bounds[0], bounds[1], spec.out)
            if spec.out.block > 1:
                padding = tvm.tirx.const(0, spec.out.dtype)
                stored = T.if_then_else(channel < spec.out.channels, stored, padding)
            store(output, spec.out.element_at(n, channel, h, w), stored)
