"""The arithmetic of integer kernels in float operators, exactly.

float32 holds every whole number up to 2**24, so that sums of products that stay below it are
exact, in whatever order they are taken. Beyond it, weights are cut into two digits, whose sums are
exact apart and are added up in float64; where that is not enough, the layer is done in float64.

What kernels then do in float32 is written so that a compiler that fuses a product with a sum (as
LLVM does for TVM) changes nothing: no float32 product is followed by a float32 sum. The one
multiply-add that kernels ask for by name is done in float64, where its product is exact, and
rounded once more. (Where float64 cannot hold the sum, its addends being 2**28 times apart, it is
rounded twice. That changes a tie in float32 alone, and a step alone where the tie is at a half.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import relax
from tvm.relax import op as R

from ..kernels.int32_sums import largest_sums
from ..kernels.rounding import TO_EVEN

EXACT = 1 << 24
DIGIT = 16  # weights of 8 bits are two digits

Product = Callable[[relax.Expr, relax.Expr], relax.Expr]  # of data and weights, summed up


class WholeFloats:
    """Emits operators on tensors of whole numbers in float32."""

    def __init__(self, bb: relax.BlockBuilder):
        self.emit = bb.emit

    def scaled(self, x, factor: np.ndarray | float):
        """``x`` times a float32 that broadcasts over it."""
        factor = np.asarray(factor, np.float32)
        return x if (factor == 1).all() else self.emit(R.multiply(x, relax.const(factor)))

    def multiply_add(self, x, factor: float, addend):
        """``x * factor + addend`` in float32, rounded once."""
        product = self.emit(R.multiply(self._wide(x), relax.const(np.float32(factor), "float64")))
        return self._narrow(self.emit(R.add(product, self._wide(addend))))

    def clipped(self, x, low: float, high: float):
        """``x`` bounded by what float32 makes of the bounds, of which either may be infinite."""
        low, high = np.float32(low), np.float32(high)
        if np.isfinite([low, high]).all():
            return self.emit(R.clip(x, float(low), float(high)))
        if (low, high) == (0, np.inf):
            return self.emit(R.nn.relu(x))
        x = self.emit(R.maximum(x, relax.const(low))) if np.isfinite(low) else x
        return self.emit(R.minimum(x, relax.const(high))) if np.isfinite(high) else x

    def rounded(self, x, rounding: str):
        """``x`` as whole numbers; ``rounding`` is one of `kernels.rounding.ROUNDINGS`."""
        if rounding == TO_EVEN:
            return self.emit(R.round(x))
        if rounding == "TONEAREST":
            return self._narrow(self.rounded_half_away(self._wide(x)))
        if rounding == "UPWARD":
            x = self.emit(R.add(x, relax.const(np.float32(0.5))))
        return self.emit(R.floor(x))

    def rounded_half_away(self, x):
        """A float64 ``x`` as whole numbers, in which the half that is added is exact."""
        magnitude = self.emit(R.add(self.emit(R.abs(x)), relax.const(0.5, "float64")))
        return self.emit(R.multiply(self.emit(R.floor(magnitude)), self.emit(R.sign(x))))

    def sums(
        self,
        product: Product,
        data,
        weight: np.ndarray,
        largest: int,
        bias: np.ndarray | None = None,
        narrow: int | None = None,
    ):
        """``float32(int32)`` of a layer's accumulators.

        Parameters
        ----------
        product : callable
            Emits what the layer multiplies and sums up, of data and a constant.
        data
            Whole numbers.
        weight : numpy.ndarray
            (O, I / groups, KH, KW), integers.
        largest : int
            Largest magnitude of ``data``.
        bias : numpy.ndarray, optional
            (O, 1, 1) or (O,), integers.
        narrow : int, optional
            Bits at which the sum saturates before the bias is added.
        """
        start = np.zeros(1) if bias is None or narrow else bias.reshape(-1)
        if largest_sums(weight, largest, start).max(initial=0) <= EXACT and not narrow:
            total = product(data, relax.const(weight, "float32"))
            total = total if bias is None else R.add(self.emit(total), relax.const(bias, "float32"))
            # Already whole, unless a convolution has transformed its data, as Winograd's does.
            return self.emit(R.round(self.emit(total)))
        total = self._wide_sums(product, data, weight, largest)
        if narrow:
            end = float(1 << (narrow - 1))
            total = self.emit(R.clip(total, -end, end - 1))
        if bias is not None:
            total = self.emit(R.add(total, relax.const(bias, "float64")))
        return self._narrow(total)

    def _wide_sums(self, product: Product, data, weight: np.ndarray, largest: int):
        """Sums of products in float64."""
        weight = weight.astype(np.int64)
        high = (weight + DIGIT // 2) // DIGIT
        digits = {1: weight - DIGIT * high, DIGIT: high}
        if any(largest_sums(d, largest, np.zeros(1)).max() > EXACT for d in digits.values()):
            return self.emit(product(self._wide(data), relax.const(weight, "float64")))
        total = None
        for factor, digit in digits.items():
            part = self.emit(product(data, relax.const(digit, "float32")))
            part = self._wide(self.emit(R.round(part)))
            part = self.emit(R.multiply(part, relax.const(factor, "float64")))
            total = part if total is None else self.emit(R.add(total, part))
        return total

    def _wide(self, x):
        return self.emit(R.astype(x, "float64"))

    def _narrow(self, x):
        return self.emit(R.astype(x, "float32"))
