"""Sums of activations over the window of each output pixel: what weights' zero points multiply.

``sum((x - zx) * (w - zw)) = sum((x - zx) * w) - zw * sum((x - zx))``: kernels compute the first
term as ever, and this file the sum of the second, which all output channels share. A padded pixel
holds the zero point and adds nothing. Every task sums the rows that its own row of outputs reads:
the sums of each input column first, over the kernel's rows and the channels, then over the
kernel's columns where a pixel needs them. Beside the products of a task's output channels, which
are 32 mostly, that is one instruction in 32 with `vpdpbusd`; a pass of its own over the input would
take another parallel region.

Source: the correction is that of gemmlowp ("Low-precision matrix multiplication",
``doc/low-precision.md``); summing by columns is the usual box filter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import tvm

from .blocking import start_of
from .intrinsics import InstructionSet
from .intrinsics.base import add_bytes_plainly
from .row_tiles import RowTiles
from .spec import ConvSpec, Window
from .tir import BLOCK, T, ceildiv, lanes_at, local, splat, store

FOUR = 4  # channels of an image for a first layer


def instructions(spec: ConvSpec, dots: str) -> str:
    """What multiplies and adds, and whether there are window sums."""
    return f"{dots}, window sums" if spec.weight_zero_points else dots


class WindowSums:
    """Emits the sums for one row of outputs, then gives that of each pixel.

    Parameters
    ----------
    spec : ConvSpec
        A layer of uint8.
    isa : InstructionSet
        What adds bytes.
    """

    def __init__(self, spec: ConvSpec, isa: InstructionSet):
        self.spec, self.isa, self.factor = spec, isa, None
        data, window = spec.data, spec.window
        if data.halo:  # its border is in memory, zero points as any other
            top, left, bottom, right = data.halo
            data = replace(data, height=data.height + top + bottom, width=data.width + left + right)
            window = replace(window, padding=(0, 0, 0, 0))
        self.window = window
        self.rows = RowTiles(data, spec.out, window, 1)
        self.in_group = spec.data.channels // spec.groups
        last = (spec.out.width - 1) * window.strides[1]
        self.size = last + (window.kernel[1] - 1) * window.dilation[1] + 1  # columns that are read
        self.left = min(window.padding[1], self.size)
        self.inside = min(data.width, self.size - self.left)

    def multiply_by(self, weight_zero_point) -> None:
        """Give sums times the one zero point that all weights have."""
        self.factor = weight_zero_point[0]

    def emit_row(self, data, n, oh, group) -> None:
        """Sum the columns that row ``oh`` of image ``n`` reads, for one group of channels."""
        self.columns = local(self.size, "int32")
        self._clear(0, self.left)
        self._clear(self.left + self.inside, self.size)
        low, high = self.rows.kernel_rows(oh)
        count = T.max(high - low, 0)  # rows outside the image on one side leave less than none
        zero_points = count * (self.spec.data.zero_point * self.in_group)

        def bytes_at(kh, channel, column, count: int):
            ih = oh * self.window.strides[0] - self.window.padding[0] + kh * self.window.dilation[0]
            channel = group * self.in_group + channel
            if count > 1:  # they may run on into the next pixels
                return data[tuple(self.spec.data.vector_at(n, channel, ih, column, count))]
            if self.spec.data.halo:
                return data[n, 0, ih, column, channel]
            return data[tuple(self.spec.data.element_at(n, channel, ih, column))]

        self._emit_columns(low, high, bytes_at, zero_points)

    def emit_images(self, data) -> None:
        """Sum the features of each image of a dense layer, one column an image."""
        self.left, self.inside, self.window = 0, self.spec.batch, Window()
        self.columns = local(self.inside, "int32")

        def bytes_at(_kh, channel, image, count: int):
            return data[tuple(self.spec.data.vector_at(image, channel, 0, 0, count))]

        self._by_pixels(0, 1, bytes_at, self.spec.data.zero_point * self.in_group)

    def of_pixel(self, ow):
        """The sum over the window of output column ``ow`` (or of one image of a dense layer)."""
        (_, stride), (_, step) = self.window.strides, self.window.dilation
        total = self.columns[ow * stride]
        for kw in range(1, self.window.kernel[1]):
            total = total + self.columns[ow * stride + kw * step]
        return T.bind(total)

    def _clear(self, first: int, last: int) -> None:
        if first < last:
            with T.serial(first, last) as column:
                store(self.columns, [column], T.int32(0))

    def _emit_columns(self, low, high, bytes_at: Callable, zero_points) -> None:
        block = self.spec.data.block
        pixels = 4 * self.isa.lanes // block
        fit = self.inside >= pixels > 1 and not self.spec.data.halo
        if block in (FOUR, BLOCK) and fit:
            self._by_vectors(pixels, low, high, bytes_at, zero_points)
        elif block % BLOCK == 0:
            self._by_pixels(low, high, bytes_at, zero_points)
        else:
            self._by_bytes(low, high, bytes_at, zero_points)

    def _by_vectors(self, pixels: int, low, high, bytes_at: Callable, zero_points) -> None:
        """Four channels to a lane, a vector of pixels at a time."""
        lanes = self.isa.lanes
        with T.serial(ceildiv(self.inside, pixels)) as step:
            first = start_of(step, pixels, self.inside)
            acc = local(lanes, "int32")
            whole = lanes_at(0, lanes)
            store(acc, [whole], splat(0, "int32", lanes))

            def add(kh, channel, mask) -> None:
                x = bytes_at(kh, channel, first, 4 * lanes)
                x = x if mask is None else T.bitwise_and(x, mask)
                store(acc, [whole], self._add_bytes(acc[whole], x))

            self._over_channels(low, high, 4 * lanes, add)
            total = acc[whole]
            if pixels < lanes:  # the four lanes of each pixel
                quarters = [
                    tvm.tirx.Shuffle([total], [T.int32(4 * p + k) for p in range(pixels)])
                    for k in range(4)
                ]
                total = (quarters[0] + quarters[1]) + (quarters[2] + quarters[3])
            at = lanes_at(self.left + first, pixels)
            total = total - splat(zero_points, "int32", pixels)
            if self.factor is not None:
                total = total * T.broadcast(self.factor, pixels)
            store(self.columns, [at], total)

    def _by_pixels(self, low, high, bytes_at: Callable, zero_points) -> None:
        """The 16 lanes of one pixel's channels, then their sum."""
        with T.serial(self.inside) as column:
            acc = local(BLOCK, "int32")
            whole = lanes_at(0, BLOCK)
            store(acc, [whole], splat(0, "int32", BLOCK))

            def add(kh, channel, mask) -> None:
                x = bytes_at(kh, channel, column, BLOCK)
                x = x if mask is None else T.bitwise_and(x, mask)
                store(acc, [whole], acc[whole] + T.cast(x, f"int32x{BLOCK}"))

            self._over_channels(low, high, BLOCK, add)
            total = T.call_llvm_pure_intrin("int32", "llvm.vector.reduce.add", acc[whole])
            self._store(column, total - zero_points)

    def _by_bytes(self, low, high, bytes_at: Callable, zero_points) -> None:
        """Few channels, one byte after the other: LLVM makes vectors of columns."""
        with T.serial(self.inside) as column:
            total = local(1, "int32")
            store(total, [0], T.int32(0))
            with T.serial(low, high) as kh, T.serial(self.in_group) as channel:
                x = T.cast(bytes_at(kh, channel, column, 1), "int32")
                store(total, [0], total[0] + x)
            self._store(column, total[0] - zero_points)

    def _store(self, column, total) -> None:
        total = total if self.factor is None else total * self.factor
        store(self.columns, [self.left + column], total)

    def _over_channels(self, low, high, size: int, add: Callable) -> None:
        """Emit ``add(kh, channel, mask)`` for each kernel row and each 16 (or 4) of the channels.

        ``mask`` leaves out padded channels from ``size`` bytes, and is None where there are none.
        """
        unit = min(self.spec.data.block, BLOCK)
        whole, rest = divmod(self.in_group, unit)
        with T.serial(low, high) as kh:
            if whole:
                with T.serial(whole) as chunk:
                    add(kh, chunk * unit, None)
            if rest:
                add(kh, whole * unit, _first_channels(rest, unit, size))

    def _add_bytes(self, acc, x):
        if self.isa.add_bytes:
            return self.isa.add_bytes(acc, x)
        return add_bytes_plainly(acc, x, self.isa.lanes)


def _first_channels(count: int, unit: int, size: int):
    """A mask of ``size`` bytes that keeps ``count`` of every ``unit``."""
    kept = [T.uint8(255 if byte % unit < count else 0) for byte in range(size)]
    return tvm.tirx.Shuffle(kept, [T.int32(byte) for byte in range(size)])
