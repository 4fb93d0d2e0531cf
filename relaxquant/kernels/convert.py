"""Conversion of layout and precision: quantize, dequantize, requantize, pack, unpack, clip.

One kernel does all of them, because a pass over memory costs the same whatever it computes. Three
cases are vectorised, as they lie on every network's path: between layouts whose blocks are whole
16s of channels, and an image, floats in plain NCHW or bytes in plain NHWC, to uint8 pixels for the
first convolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm

from .elementwise import each_vector, load_vector
from .image import (
    bytes_to_pixels,
    fill_halo,
    image_to_pixels,
    is_image,
    is_image_of_bytes,
)
from .intrinsics import InstructionSet
from .requantize import from_float, from_float_scalar, to_float_scalar
from .spec import TensorSpec
from .tir import BLOCK, T, arg, batch_extent, prim_func, store, tensor_arg


@dataclass(frozen=True)
class ConvertSpec:
    """``out = clip((data - zero_point) * scale)`` in the output's layout and precision.

    ``copies`` says that this is the stored integer itself, or int8 shifted by 128 as uint8.
    """

    batch: int | None
    data: TensorSpec
    out: TensorSpec
    copies: bool = False


def build(spec: ConvertSpec, isa: InstructionSet) -> tvm.tirx.PrimFunc:
    """The conversion as a PrimFunc.

    Arguments: data, bounds (low, high, output units for one step of the input), output.
    """

    def body():
        batch = batch_extent(spec.batch)
        data = tensor_arg("data", spec.data, batch)
        bounds = arg("bounds", (3,), "float32")
        output = tensor_arg("output", spec.out, batch)
        if spec.out.halo:
            fill_halo(spec.out, batch, output)
        emit = _by_channel
        if spec.data.block % BLOCK == spec.out.block % BLOCK == 0:
            emit = _blocked
        elif is_image(spec.data, spec.out, isa):
            emit = image_to_pixels
        elif spec.copies and is_image_of_bytes(spec.data, spec.out, isa):
            emit = bytes_to_pixels
        emit(spec, isa, batch, data, bounds, output)

    return prim_func(body)


def _blocked(spec: ConvertSpec, isa: InstructionSet, batch, data, bounds, output) -> None:
    for at in each_vector(batch, spec.out, isa.lanes):
        value = load_vector(data, spec.data, at, isa.lanes) * T.broadcast(bounds[2], isa.lanes)
        stored = from_float(value, bounds[0], bounds[1], spec.out, isa)
        store(output, spec.out.vector_at(*at, isa.lanes), stored)


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
            if spec.out.padded_channels > spec.out.channels:
                padding = tvm.tirx.const(0, spec.out.dtype)
                stored = T.if_then_else(channel < spec.out.channels, stored, padding)
            store(output, spec.out.element_at(n, channel, h, w), stored)
