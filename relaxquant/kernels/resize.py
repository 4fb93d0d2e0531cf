"""Padding and resizing of quantized images: which pixel comes from which ones.

Bilinear interpolation is TFLite's: of int8 with weights of ten bits, products summed in int32 and
rounded to the nearest, halves away from zero; of uint8 in float32, without fused operations.

Source: our own code for the arithmetic of TensorFlow Lite's
``kernels/internal/reference/resize_bilinear.h`` and ``resize_nearest_neighbor.h``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm

from .elementwise import each_vector
from .intrinsics import InstructionSet
from .spec import TensorSpec
from .tir import T, arg, batch_extent, prim_func, splat, store, tensor_arg

WEIGHT_BITS = 10


@dataclass(frozen=True)
class PadSpec:
    """Zero points (0 of float32) around an image; ``padding`` is (top, left, bottom, right)."""

    batch: int | None
    data: TensorSpec
    out: TensorSpec
    padding: tuple[int, int, int, int]


@dataclass(frozen=True)
class ResizeSpec:
    """An image in another size, with the same steps.

    ``linear`` interpolates, else pixels are copied; ``signed`` says that the model has int8.
    """

    batch: int | None
    data: TensorSpec
    out: TensorSpec
    linear: bool
    signed: bool = False


def build_pad(spec: PadSpec, isa: InstructionSet) -> tvm.tirx.PrimFunc:
    """The padding as a PrimFunc. Arguments: data, output."""

    def body():
        batch, lanes = batch_extent(spec.batch), isa.lanes
        data = tensor_arg("data", spec.data, batch)
        output = tensor_arg("output", spec.out, batch)
        top, left, _, _ = spec.padding
        nothing = tvm.tirx.const(spec.out.zero_point, spec.out.dtype)
        for n, channel, h, w in each_vector(batch, spec.out, lanes):
            at = spec.out.vector_at(n, channel, h, w, lanes)
            rows = T.And(h >= top, h < top + spec.data.height)
            columns = T.And(w >= left, w < left + spec.data.width)
            with T.If(T.And(rows, columns)):
                with T.Then():
                    source = spec.data.vector_at(n, channel, h - top, w - left, lanes)
                    store(output, at, data[tuple(source)])
                with T.Else():
                    store(output, at, T.broadcast(nothing, lanes))

    return prim_func(body)


def nearest(size: int, wanted: int, mode: str) -> list[np.ndarray]:
    """The row or column that each of the output's is copied from: int32 (wanted,).

    Parameters
    ----------
    size, wanted : int
        Pixels of the input and output.
    mode : str
        ``"asymmetric"``, ``"half_pixel"`` or ``"align_corners"``.
    """
    corners = mode == "align_corners" and wanted > 1
    ends = (size - 1, wanted - 1) if corners else (size, wanted)
    offset = np.float32(0.5 if mode == "half_pixel" else 0)
    exact = (np.arange(wanted, dtype=np.float32) + offset) * (np.float32(ends[0]) / ends[1])
    whole = np.floor(exact + np.float32(0.5)) if corners else np.floor(exact)
    return [np.clip(whole, 0, size - 1).astype(np.int32)]


def between(size: int, wanted: int, mode: str, signed: bool) -> list[np.ndarray]:
    """The two rows or columns that each of the output's lies between, and the second's weight.

    Parameters
    ----------
    size, wanted, mode
        As for `nearest`.
    signed : bool
        Whether weights count in 1024ths, int32, or are float32.

    Returns
    -------
    list of numpy.ndarray
        int32 (wanted, 2), and the weights (wanted,).
    """
    corners = mode == "align_corners" and wanted > 1
    ends = (size - 1, wanted - 1) if corners else (size, wanted)
    if signed:
        one = 1 << WEIGHT_BITS
        step = (one * ends[0] + ends[1] // 2) // ends[1]
        exact = np.arange(wanted) * step + (step // 2 - one // 2 if mode == "half_pixel" else 0)
        first, second = np.fix(exact / one), np.fix((exact + one - 1) / one)
    else:
        one, step = 1, np.float32(ends[0]) / np.float32(ends[1])
        half = np.float32(0.5 if mode == "half_pixel" else 0)
        exact = (np.arange(wanted, dtype=np.float32) + half) * step - half
        first, second = np.floor(exact), np.ceil(exact)
    first, second = np.maximum(first, 0), np.minimum(second, size - 1)
    weight = (exact - one * first).astype(np.int32 if signed else np.float32)
    return [np.stack([first, second], axis=1).astype(np.int32), weight]


def build_resize(spec: ResizeSpec, isa: InstructionSet) -> tvm.tirx.PrimFunc:
    """The resizing as a PrimFunc.

    Arguments: data, `nearest` of rows and of columns, or `between` of both, output.
    """
    emit = _emit_between if spec.linear else _emit_nearest
    return prim_func(lambda: emit(spec, isa.lanes, batch_extent(spec.batch)))


def _emit_nearest(spec: ResizeSpec, lanes: int, batch) -> None:
    data = tensor_arg("data", spec.data, batch)
    rows = arg("rows", (spec.out.height,), "int32")
    columns = arg("columns", (spec.out.width,), "int32")
    output = tensor_arg("output", spec.out, batch)
    for n, channel, h, w in each_vector(batch, spec.out, lanes):
        source = spec.data.vector_at(n, channel, rows[h], columns[w], lanes)
        store(output, spec.out.vector_at(n, channel, h, w, lanes), data[tuple(source)])


def _emit_between(spec: ResizeSpec, lanes: int, batch) -> None:
    height, width = spec.out.height, spec.out.width
    weight = "int32" if spec.signed else "float32"
    data = tensor_arg("data", spec.data, batch)
    rows, down = arg("rows", (height, 2), "int32"), arg("down", (height,), weight)
    columns, right = arg("columns", (width, 2), "int32"), arg("right", (width,), weight)
    output = tensor_arg("output", spec.out, batch)
    interpolated = _in_integers if spec.signed else _in_float
    for n, channel, h, w in each_vector(batch, spec.out, lanes):
        pixels = [
            [
                data[tuple(spec.data.vector_at(n, channel, rows[h, i], columns[w, j], lanes))]
                for j in (0, 1)
            ]
            for i in (0, 1)
        ]
        value = interpolated(pixels, down[h], right[w], lanes)
        store(output, spec.out.vector_at(n, channel, h, w, lanes), T.cast(value, f"uint8x{lanes}"))


def _in_integers(pixels: list, down, right, lanes: int):
    """The weighted sum of four pixels of int8, which are stored shifted by 128."""
    one = 1 << WEIGHT_BITS
    total = splat(0, "int32", lanes)
    for row, vertical in zip(pixels, (one - down, down), strict=True):
        for pixel, horizontal in zip(row, (one - right, right), strict=True):
            x = T.cast(pixel, f"int32x{lanes}") - splat(128, "int32", lanes)
            total = total + x * T.broadcast(vertical * horizontal, lanes)
    half = splat(1 << (2 * WEIGHT_BITS - 1), "int32", lanes)
    magnitude = T.shift_right(T.abs(total) + half, splat(2 * WEIGHT_BITS, "int32", lanes))
    zero = splat(0, "int32", lanes)
    return T.Select(total < zero, zero - magnitude, magnitude) + splat(128, "int32", lanes)


def _in_float(pixels: list, down, right, lanes: int):
    """The weighted sum of four pixels of uint8, each product and sum rounded to float32."""
    one = T.float32(1)
    weights = [((one - down), (one - right)), (down, (one - right)), ((one - down), right)]
    weights.append((down, right))
    corners = [pixels[0][0], pixels[1][0], pixels[0][1], pixels[1][1]]
    total = None
    for pixel, (vertical, horizontal) in zip(corners, weights, strict=True):
        product = _rounded(_rounded(pixel, vertical, lanes), horizontal, lanes)
        total = product if total is None else total + product
    return T.cast(total + splat(0.5, "float32", lanes), f"int32x{lanes}")


def _rounded(x, factor, lanes: int):
    """A product in float32. It is exact in float64, in which LLVM cannot fuse it with a sum."""
    factor = T.broadcast(T.cast(factor, "float64"), lanes)
    return T.cast(T.cast(x, f"float64x{lanes}") * factor, f"float32x{lanes}")
