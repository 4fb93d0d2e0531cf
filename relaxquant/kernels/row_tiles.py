"""Output rows cut into register tiles, with the image border known at compile time.

Inputs are not padded in memory. A tile whose taps all lie inside the image runs over a plain loop;
the one or two tiles at each end of a row are emitted on their own, without the taps that fall
outside. Rows above and below the image are cut from the loop over the kernel's height.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .spec import TensorSpec, Window
from .tir import T, ceildiv


@dataclass(frozen=True)
class RowTiles:
    """Register tiles of one output row.

    Parameters
    ----------
    data, out : TensorSpec
        Input and output of the layer.
    window : Window
        Kernel, strides, padding, dilation.
    size : int
        Output pixels in a full tile.
    """

    data: TensorSpec
    out: TensorSpec
    window: Window
    size: int

    @property
    def count(self) -> int:
        """Tiles in a row."""
        return ceildiv(self.out.width, self.size)

    def emit(self, tile: Callable) -> None:
        """Emit ``tile(start, width, edge)`` for the row: edges one by one, the rest as a loop.

        ``edge`` is the static start of a tile at the border, and None for tiles inside.
        """
        starts = range(0, self.out.width, self.size)
        inner = [start for start in starts if self._inside(start)]
        for start in starts:
            if start not in inner:
                tile(start, min(self.size, self.out.width - start), start)
        if len(inner) == 1:
            tile(inner[0], self.size, None)
        elif inner:
            with T.serial(len(inner)) as step:
                tile(inner[0] + step * self.size, self.size, None)

    def _inside(self, start: int) -> bool:
        whole = start + self.size <= self.out.width
        return whole and all(
            self.valid(start, self.size, kw) == (0, self.size)
            for kw in range(self.window.kernel[1])
        )

    def valid(self, start: int, width: int, kw: int) -> tuple[int, int]:
        """First and one past the last pixel of a tile whose tap ``kw`` is inside the image."""
        stride, left = self.window.strides[1], self.window.padding[1]
        columns = [(start + i) * stride - left + kw * self.window.dilation[1] for i in range(width)]
        inside = [i for i, column in enumerate(columns) if 0 <= column < self.data.width]
        return (inside[0], inside[-1] + 1) if inside else (0, 0)

    def kernel_rows(self, oh) -> tuple:
        """First and one past the last kernel row that is inside the image for output row oh."""
        (height, _), (stride, _) = self.window.kernel, self.window.strides
        top, _, bottom, _ = self.window.padding
        step = self.window.dilation[0]
        if top == bottom == 0:
            return 0, height
        above = T.max(top - oh * stride, 0)
        below = T.max(self.data.height + top - oh * stride, 0)
        return (above + (step - 1)) // step, T.min((below + (step - 1)) // step, height)

    def taps(self, oh, width: int, edge: int | None, body: Callable) -> None:
        """Emit ``body(kh, kw, first, last)`` for every tap, for the pixels it is valid for."""
        low, high = self.kernel_rows(oh)
        columns = self.window.kernel[1]
        with T.serial(low, high) as kh:
            if edge is None:
                with T.serial(columns) as kw:
                    body(kh, kw, 0, width)
                return
            for kw in range(columns):
                first, last = self.valid(edge, width, kw)
                if first < last:
                    body(kh, kw, first, last)

    def missing_taps(self, oh, width: int, edge: int | None, body: Callable) -> None:
        """Emit ``body(kh, kw, first, last)`` for every tap outside the image.

        A whole kernel row outside is one call with ``kw`` equal to the kernel's width.
        """
        low, high = self.kernel_rows(oh)
        rows, columns = self.window.kernel
        with T.serial(rows) as kh, T.If(T.Or(kh < low, kh >= high)):
            with T.Then():
                body(kh, columns, 0, width)
            with T.Else():
                self._missing_columns(kh, width, edge, body)

    def _missing_columns(self, kh, width: int, edge: int | None, body: Callable) -> None:
        for kw in range(self.window.kernel[1]):
            first, last = (0, width) if edge is None else self.valid(edge, width, kw)
            for begin, end in ((0, first), (last, width)) if first < last else ((0, width),):
                if begin < end:
                    body(kh, kw, begin, end)
        T.evaluate(0)  # an else branch must hold a statement even where no column is missing
