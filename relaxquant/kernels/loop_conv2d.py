"""A convolution and its epilogue as plain loops in blocks, for TVM's schedules to transform.

What `conv2d_nchw_spatial_pack` emits in the order in which it runs is said here without an order:
a block ``padded`` that adds the border (zero points, so that no correction is needed), a block
``acc`` of multiply-adds and a block ``output`` that stores. Layouts, packed weights and arguments
are those of that kernel, the table that says where the faster of two dot products is exact included
(`dot_choice`): both ways the sum is the same, and what to make of it is the tensor intrinsic's
affair.

Written in TE: TVMScript says the same, and takes seconds to parse.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import te

from .dot_choice import DotChoice
from .epilogue import conv_arguments
from .fixed_point import FLOAT
from .pack import pack_conv
from .requantize import from_float_scalar, to_float_scalar
from .spec import ConvSpec, ConvWeights
from .tir import BLOCK, T, float_function

PADDED, ACC, OUTPUT = "padded", "acc", "output"  # names of the blocks


def applies(spec: ConvSpec) -> bool:
    """Whether all that a layer needs can be said in these loops."""
    return not why_not(spec)


def why_not(spec: ConvSpec) -> str:
    """What of a layer cannot be said in these loops, in a word or two; empty where all can."""
    data, epilogue = spec.data, spec.epilogue
    unsaid = {
        "int16": spec.precision == "int16",
        "fp16": spec.precision == "fp16",
        "depthwise": spec.groups > 1 and spec.groups == data.channels,
        "groups": spec.groups > 1,
        "symbolic batch": spec.batch is None,
        "weight zero points": bool(spec.weight_zero_points),
        "an image": data.channels < BLOCK and (data.block != BLOCK or bool(data.halo)),
        "NHWC": not data.block == spec.out.block == BLOCK or bool(data.halo),
        "narrow sums": epilogue.narrow is not None,
        "TFLite's requantization": epilogue.requantize != FLOAT,
    }
    return next((word for word, is_so in unsaid.items() if is_so), "")


def arguments(spec: ConvSpec, weights: ConvWeights, dots: DotChoice) -> list[np.ndarray | int]:
    """In the order of `function`, as an `Implementation` lists them."""
    packed = pack_conv(spec, weights.weight, BLOCK)
    if spec.taps > 1:
        packed = packed.reshape(*packed.shape[:-1], BLOCK, spec.taps)
    return conv_arguments(spec, weights, [packed, *([dots.proven] if dots.often else [])])


def function(spec: ConvSpec, dots: DotChoice) -> tvm.tirx.PrimFunc:
    """The loops as a PrimFunc of blocks; equal specs give equal functions.

    Arguments: data, weight (O / 16, I blocks, KH, KW, steps, 16[, taps]), [proven (O / 16,
    I blocks, KH, KW), where there are two dot products], bias, [multiplier], [residual], bounds,
    output.
    """
    data = te.placeholder(spec.data.physical_shape(spec.batch), spec.data.dtype, "data")
    acc, weight, proven = _sums(spec, data, bool(dots.often))
    channels, extra = (spec.out.padded_channels,), spec.epilogue.residual
    is_integer = spec.precision != "fp32"
    bias = te.placeholder(channels, acc.dtype, "bias")
    multiplier = te.placeholder(channels, "float32", "multiplier") if is_integer else None
    residual = extra and te.placeholder(extra.physical_shape(spec.batch), extra.dtype, "residual")
    bounds = te.placeholder((3,), "float32", "bounds")

    def stored(n, o, h, w, c):
        channel = o * BLOCK + c
        value = acc[n, o, h, w, c] + bias[channel]
        if multiplier is not None:
            value = T.cast(value, "float32") * multiplier[channel]
        if residual is not None:
            steps = to_float_scalar(residual[n, o, h, w, c], extra)
            value = float_function("llvm.fma", "float32", steps, bounds[2], value)
        if spec.out.dtype == "float32" and not spec.epilogue.clip:
            return value
        return from_float_scalar(value, bounds[0], bounds[1], spec.out)

    output = te.compute(acc.shape, stored, OUTPUT)
    given = [data, weight, proven, bias, multiplier, residual, bounds, output]
    made = te.create_prim_func([tensor for tensor in given if tensor is not None])
    return made.with_attr("global_symbol", "main")


def _sums(
    spec: ConvSpec, data: te.Tensor, has_table: bool
) -> tuple[te.Tensor, te.Tensor, te.Tensor | None]:
    """The accumulators, int32 or float32 (N, O / 16, H, W, 16), the weights and the table."""
    is_integer, taps, window = spec.precision != "fp32", spec.taps, spec.window
    dtype, weight_dtype = ("int32", "int8") if is_integer else ("float32", "float32")
    steps = BLOCK // taps
    inner = (BLOCK, taps) if taps > 1 else (BLOCK,)
    shape = (spec.out.blocks, spec.data.blocks, *window.kernel, steps, *inner)
    weight = te.placeholder(shape, weight_dtype, "weight")
    proven = te.placeholder(shape[:4], "uint8", "proven") if has_table else None
    padded = _padded(spec, data)
    names = ("block", "kh", "kw", "step", "tap")
    extents = (spec.data.blocks, *window.kernel, steps, taps)
    axes = [te.reduce_axis((0, extent), name) for extent, name in zip(extents, names, strict=True)]
    axes = axes if taps > 1 else axes[:-1]

    def total(n, o, h, w, c):
        block, kh, kw, step, *tap = axes
        ih = h * window.strides[0] + kh * window.dilation[0]
        iw = w * window.strides[1] + kw * window.dilation[1]
        channel = step * taps + tap[0] if tap else step
        x, y = padded[n, block, ih, iw, channel], weight[o, block, kh, kw, step, c, *tap]
        product = T.cast(x, dtype) * T.cast(y, dtype)
        if proven is not None:
            product = either_way(proven[o, block, kh, kw], product)
        return te.sum(product, axis=axes)

    return te.compute(spec.out.physical_shape(spec.batch), total, ACC), weight, proven


def either_way(proven, product):
    """The product, whatever the table says: how a tensor intrinsic comes by the table."""
    return tvm.tirx.if_then_else(proven != T.uint8(0), product, product)


def _padded(spec: ConvSpec, data: te.Tensor) -> te.Tensor:
    """The data with its border of zero points in memory; the data itself where there is none."""
    top, left, bottom, right = spec.window.padding
    if not any(spec.window.padding):
        return data
    batch, blocks, height, width, block = data.shape
    border = tvm.tirx.const(spec.data.zero_point, data.dtype)

    def element(n, c, h, w, inner):
        h, w = h - top, w - left
        inside = tvm.tirx.all(h >= 0, h < height, w >= 0, w < width)
        return tvm.tirx.if_then_else(inside, data[n, c, h, w, inner], border)

    size = (height + top + bottom, width + left + right)
    return te.compute((batch, blocks, *size, block), element, PADDED)
