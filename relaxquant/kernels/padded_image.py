"""An image with its border, as schedules see it that transform every pixel before they use it.

The border holds the zero point, so that the loops over the window need to know nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable

from .spec import ConvSpec
from .tir import BLOCK, T, local, splat, store


class PaddedImage:
    """The pixels that the windows of an image cover.

    Attributes
    ----------
    rows, columns : int
        Its size.
    height, width : int
        That of the output.
    strides : tuple of int
        From window to window. Of a 1x1 kernel's pixels only those that are read are in the image:
        then 1.

    A dense layer on several images is one image here, a row of them.
    """

    def __init__(self, spec: ConvSpec):
        self.spec, self.dense = spec, spec.is_batched_dense
        kernel, self.strides, self.step = spec.window.kernel, spec.window.strides, (1, 1)
        if kernel == (1, 1):
            self.strides, self.step = (1, 1), spec.window.strides
        self.height, self.width = output_size(spec)
        self.rows = (self.height - 1) * self.strides[0] + kernel[0]
        self.columns = (self.width - 1) * self.strides[1] + kernel[1]

    def emit_row(self, data, n, row, pixel: Callable) -> None:
        """Emit ``pixel(column, load)`` for every pixel of a row.

        Parameters
        ----------
        data : buffer
            The activations.
        n, row
            Image and row.
        pixel : callable
            Its ``load(block)`` gives the 16 channels of a block, uint8 x 16.
        """
        top, left = self.spec.window.padding[:2]
        ih = row * self.step[0] - top

        def emit(first: int, last: int, inside: bool) -> None:
            if first == last:
                return
            with T.serial(last - first) as i:
                column = first + i
                pixel(column, self._load(data, n, ih, column) if inside else self._border)

        if not any(self.spec.window.padding):
            emit(0, self.columns, True)
            return
        reads = [column * self.step[1] - left for column in range(self.columns)]
        inside = [c for c, iw in enumerate(reads) if 0 <= iw < self.spec.data.width]
        first, last = (inside[0], inside[-1] + 1) if inside else (0, 0)
        with T.If(T.And(ih >= 0, ih < self.spec.data.height)):
            with T.Then():
                emit(0, first, False)
                emit(first, last, True)
                emit(last, self.columns, False)
            with T.Else():
                emit(0, self.columns, False)

    def window_sum(self, sums, oh, ow):
        """The sum of ``sums``, int32 (rows, columns), over the window of an output pixel."""
        total = local(1, "int32")
        store(total, [0], T.int32(0))
        row, column = oh * self.strides[0], ow * self.strides[1]
        rows, columns = self.spec.window.kernel
        with T.serial(rows) as kh, T.serial(columns) as kw:
            store(total, [0], total[0] + sums[row + kh, column + kw])
        return total[0]

    def output(self, n, oh, ow) -> tuple:
        """Image, row and column in the output, of one in the row of a dense layer's images too."""
        return (ow, 0, 0) if self.dense else (n, oh, ow)

    def _border(self, _block):
        return splat(self.spec.data.zero_point, "uint8", BLOCK)

    def _load(self, data, n, ih, column) -> Callable:
        iw = column * self.step[1] - self.spec.window.padding[1]
        n, ih, iw = (column, 0, 0) if self.dense else (n, ih, iw)
        spec = self.spec.data
        return lambda block: data[tuple(spec.vector_at(n, block * BLOCK, ih, iw, BLOCK))]


def output_size(spec: ConvSpec) -> tuple[int, int]:
    """Height and width of the output; for a dense layer on several images 1 and their number."""
    return (1, spec.batch) if spec.is_batched_dense else (spec.out.height, spec.out.width)
