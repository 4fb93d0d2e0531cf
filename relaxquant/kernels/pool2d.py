"""Max and average pooling on NCHW16c and NHWC, fp32 and uint8: memory-bound, one vector at a time.

Global average pooling is average pooling with a window as large as the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm

from .intrinsics import InstructionSet
from .requantize import from_float
from .row_tiles import RowTiles
from .spec import TensorSpec, Window
from .tir import BLOCK, T, arg, batch_extent, lanes_at, local, prim_func, splat, store


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
    """

    kind: str
    batch: int | None
    data: TensorSpec
    out: TensorSpec
    window: Window
    count_include_pad: bool = False


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
        self.rows = RowTiles(spec.data, spec.out, spec.window, 1)
        integer_average = spec.kind == "avg" and spec.data.dtype == "uint8"
        self.dtype = "int32" if integer_average else spec.data.dtype

    def emit(self) -> None:
        spec, lanes = self.spec, self.isa.lanes
        batch = batch_extent(spec.batch)
        self.data = arg("data", spec.data.physical_shape(batch), spec.data.dtype)
        if spec.kind == "avg":
            self.bounds = arg("bounds", (3,), "float32")
        self.output = arg("output", spec.out.physical_shape(batch), spec.out.dtype)
        blocks, height = spec.out.padded_channels // BLOCK, spec.out.height
        with T.parallel(batch * blocks * height) as task:
            self.n, block = task // (blocks * height), task // height % blocks
            self.oh = task % height
            with T.serial(spec.out.width) as ow, T.unroll(BLOCK // lanes) as vector:
                self._emit_pixel(ow, block * BLOCK + vector * lanes)

    def _emit_pixel(self, ow, channel) -> None:
        window, lanes = self.spec.window, self.isa.lanes
        acc = local(lanes, self.dtype)
        whole = [lanes_at(0, lanes)]
        store(acc, whole, self._start())
        row_low, row_high = self.rows.kernel_rows(self.oh)
        column_low, column_high = self._kernel_columns(ow)
        with T.serial(row_low, row_high) as kh, T.serial(column_low, column_high) as kw:
            ih = self.oh * window.strides[0] - window.padding[0] + kh * window.dilation[0]
            iw = ow * window.strides[1] - window.padding[1] + kw * window.dilation[1]
            at = self.spec.data.vector_at(self.n, channel, ih, iw, lanes)
            store(acc, whole, self._combine(acc[whole[0]], self.data[tuple(at)]))
        count = (row_high - row_low) * (column_high - column_low)
        at = self.spec.out.vector_at(self.n, channel, self.oh, ow, lanes)
        store(self.output, at, self._finish(acc[whole[0]], count))

    def _start(self):
        lowest = float(np.finfo(np.float32).min) if self.dtype == "float32" else 0
        start = lowest if self.spec.kind == "max" else 0
        return splat(start, self.dtype, self.isa.lanes)

    def _combine(self, acc, x):
        if self.spec.kind == "max":
            return T.max(acc, x)
        return acc + T.cast(x, f"{self.dtype}x{self.isa.lanes}")

    def _finish(self, acc, count):
        if self.spec.kind == "max":
            return acc
        spec, lanes = self.spec, self.isa.lanes
        if spec.data.zero_point:
            acc = acc - T.broadcast(T.cast(count * spec.data.zero_point, self.dtype), lanes)
        divisor = np.prod(spec.window.kernel).item() if spec.count_include_pad else count
        scale = self.bounds[2] / T.cast(divisor, "float32")
        value = T.cast(acc, f"float32x{lanes}") * T.broadcast(scale, lanes)
        return from_float(value, self.bounds[0], self.bounds[1], spec.out, self.isa)

    def _kernel_columns(self, ow) -> tuple:
        """As `RowTiles.kernel_rows`, along the width, for a column known only at run time."""
        window = self.spec.window
        _, left, _, right = window.padding
        if left == right == 0:
            return 0, window.kernel[1]
        step, origin = window.dilation[1], ow * window.strides[1]
        low = T.max(left - origin, 0)
        high = T.max(self.spec.data.width + left - origin, 0)
        return (low + (step - 1)) // step, T.min((high + (step - 1)) // step, window.kernel[1])
