"""Max and average pooling on NCHW16c and NHWC, floats, uint8 and int16: a few vectors at a time.

Global average pooling is average pooling with a window as large as the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm

from . import fixed_point
from .fixed_point import FLOAT, TFLITE
from .intrinsics import InstructionSet
from .requantize import clip_vector, from_float
from .row_tiles import RowTiles
from .spec import TensorSpec, Window
from .tir import BLOCK, CPU, T, arg, batch_extent, lanes_at, local, prim_func, splat, store, update

PIXELS = 4  # in a register tile: enough sums in flight to hide their latency


@dataclass(frozen=True)
class PoolSpec:
    """A pooling layer.

    Parameters
    ----------
    kind : str
        ``"max"`` or ``"avg"``.
    batch : int or None
        None where symbolic.
    data, out : TensorSpec
        Input and output. For ``"max"`` both have the same scale and zero point.
    window : Window
        Taps outside the image take no part in the maximum or the sum. Every window must touch the
        image: the maximum and the average of nothing are not defined.
    count_include_pad : bool
        Whether an average divides by the window's size at the border too.
    requantize : str
        One of `fixed_point.REQUANTIZE`. TFLite's average, of an input and output with the same
        steps, is the integer quotient nearest to it, halves away from zero, of the integers as the
        model has them: int8 if ``signed``, which lie here shifted by 128. A ``mean`` it multiplies
        in fixed point.
    """

    kind: str
    batch: int | None
    data: TensorSpec
    out: TensorSpec
    window: Window
    count_include_pad: bool = False
    requantize: str = FLOAT
    signed: bool = False
    mean: bool = False


def pool_parameters(spec: PoolSpec, multiplier: float, low: float, high: float) -> list[np.ndarray]:
    """Arrays of the arguments between data and output: none for max, bounds for average."""
    if spec.kind == "max":
        return []
    return [np.array([low, high, multiplier], np.float32)]


def build(spec: PoolSpec, isa: InstructionSet) -> tvm.tirx.PrimFunc:
    """The pooling as a PrimFunc.

    Arguments: data, [bounds: low, high, output units for one step of the input], output.
    """
    return prim_func(lambda: _Pool(spec, isa).emit())


class _Pool:
    def __init__(self, spec: PoolSpec, isa: InstructionSet):
        self.spec, self.isa = spec, isa
        self.rows = RowTiles(spec.data, spec.out, spec.window, PIXELS)
        self.dtype = "float32" if spec.data.is_float else spec.data.dtype
        if spec.kind == "avg" and not spec.data.is_float:
            self.dtype = "int32"
        # A maximum of small integers needs no wider lanes on the way.
        is_narrow = self.dtype in ("uint8", "int16") and isa.machine == CPU
        self.lanes = BLOCK if is_narrow else isa.lanes

    def emit(self) -> None:
        spec, lanes = self.spec, self.lanes
        batch = batch_extent(spec.batch)
        self.data = arg("data", spec.data.physical_shape(batch), spec.data.dtype)
        if spec.kind == "avg":
            self.bounds = arg(
                "bounds", *(((5,), "int32") if self._fixed_point() else ((3,), "float32"))
            )
        self.output = arg("output", spec.out.physical_shape(batch), spec.out.dtype)
        blocks, height = spec.out.padded_channels // BLOCK, spec.out.height
        with T.parallel(batch * blocks * height) as task:
            self.n, block = task // (blocks * height), task // height % blocks
            self.oh = task % height
            with T.serial(BLOCK // lanes) as vector:
                self.channel = block * BLOCK + vector * lanes
                self.rows.emit(self._emit_tile)

    def _emit_tile(self, start, width: int, edge: int | None) -> None:
        self.start = start
        self.acc = [local(self.lanes, self.dtype) for _ in range(width)]
        for acc in self.acc:
            store(acc, [self._whole()], self._first_value())
        self.rows.taps(self.oh, width, edge, self._emit_tap)
        for i in range(width):
            at = self.spec.out.vector_at(self.n, self.channel, self.oh, start + i, self.lanes)
            value = self._finish(self.acc[i][self._whole()], self._taps_of(i, width, edge))
            store(self.output, at, value)

    def _emit_tap(self, kh, kw, first: int, last: int) -> None:
        window = self.spec.window
        ih = self.oh * window.strides[0] - window.padding[0] + kh * window.dilation[0]
        for i in range(first, last):
            column = (self.start + i) * window.strides[1] - window.padding[1]
            iw = column + kw * window.dilation[1]
            at = self.spec.data.vector_at(self.n, self.channel, ih, iw, self.lanes)
            value = self.data[tuple(at)]
            if self.dtype != self.spec.data.dtype:
                value = T.cast(value, f"{self.dtype}x{self.lanes}")
            update(self.acc[i], self._combine, value, self.lanes)

    def _whole(self):
        return lanes_at(0, self.lanes)

    def _first_value(self):
        lowest = {"float32": float(np.finfo(np.float32).min), "int16": -(1 << 15)}
        start = lowest.get(self.dtype, 0) if self.spec.kind == "max" else 0
        return splat(start, self.dtype, self.lanes)

    def _combine(self, acc, x):
        return T.max(acc, x) if self.spec.kind == "max" else acc + x

    def _taps_of(self, pixel: int, width: int, edge: int | None):
        """Taps of a pixel of a tile that are inside the image."""
        low, high = self.rows.kernel_rows(self.oh)
        columns = self.spec.window.kernel[1]
        if edge is not None:
            valid = [self.rows.valid(edge, width, kw) for kw in range(columns)]
            columns = sum(first <= pixel < last for first, last in valid)
        return (high - low) * columns

    def _finish(self, acc, count):
        if self.spec.kind == "max":
            return T.cast(acc, f"{self.spec.out.dtype}x{self.lanes}")
        spec, lanes = self.spec, self.lanes
        if spec.requantize == TFLITE and not spec.mean:
            return self._quotient(acc, count)
        if spec.data.zero_point:
            acc = acc - T.broadcast(T.cast(count * spec.data.zero_point, self.dtype), lanes)
        if self._fixed_point():
            return self._multiplied(acc)
        divisor = np.prod(spec.window.kernel).item() if spec.count_include_pad else count
        scale = self.bounds[2] / T.cast(divisor, "float32")
        value = T.cast(acc, f"float32x{lanes}") * T.broadcast(scale, lanes)
        return from_float(value, self.bounds[0], self.bounds[1], spec.out, self.isa)

    def _quotient(self, acc, count):
        """The nearest integer to ``acc / count`` as TFLite's kernels find it.

        A float32 quotient of numbers that float32 holds is rounded only where it is no integer, and
        never up to one as long as there are fewer than 2 ** 16 taps.
        """
        spec, lanes = self.spec, self.lanes
        if spec.signed:
            acc = acc - T.broadcast(T.cast(count * 128, "int32"), lanes)
        magnitude = T.abs(acc) if spec.signed else acc
        nearest = magnitude + T.broadcast(T.cast(count // 2, "int32"), lanes)
        divisor = T.broadcast(T.cast(count, "float32"), lanes)
        whole = T.cast(T.floor(T.cast(nearest, f"float32x{lanes}") / divisor), f"int32x{lanes}")
        if spec.signed:
            sign = T.shift_right(acc, splat(31, "int32", lanes))  # -1 or 0
            whole = T.bitwise_xor(whole, sign) - sign + splat(128, "int32", lanes)
        whole = whole - splat(spec.out.zero_point, "int32", lanes)
        return self._stored(whole, *(T.cast(self.bounds[i], "int32") for i in (0, 1)))

    def _fixed_point(self) -> bool:
        return self.spec.requantize == TFLITE and self.spec.mean

    def _multiplied(self, acc):
        """The mean: a sum times a fixed-point factor that divides by the count too."""
        factor = (T.broadcast(self.bounds[i], self.lanes) for i in (2, 3, 4))
        multiplier, right, left = factor
        steps = fixed_point.multiply(acc, multiplier, right, self.lanes, left)
        return self._stored(steps, self.bounds[0], self.bounds[1])

    def _stored(self, steps, low, high):
        zero_point = splat(self.spec.out.zero_point, "int32", self.lanes)
        steps = clip_vector(steps, low, high, self.lanes) + zero_point
        return T.cast(steps, f"{self.spec.out.dtype}x{self.lanes}")
