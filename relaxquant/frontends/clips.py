"""Clips as a maximum and a minimum, and back: for TVM's passes that take tensors alone.

``R.clip`` has its bounds as numbers, at which ``ToMixedPrecision`` of TVM 0.27 fails.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.relax import op as R

from .rewriter import Rewriter, is_scalar, operator_of


def parted(module: tvm.IRModule) -> tvm.IRModule:
    """The module with ``minimum(maximum(x, low), high)`` in the place of each clip."""
    return _Parted().rewrite(module)


def rejoined(module: tvm.IRModule) -> tvm.IRModule:
    """The module with a clip in the place of each minimum of a maximum, of scalars both."""
    return _Rejoined().rewrite(module)


class _Parted(Rewriter):
    def replaced(self, value):
        """What stands for an expression."""
        if operator_of(value) != "relax.clip":
            return super().replaced(value)
        # Of one dimension: constants of none are not folded.
        ends = ([float(bound.value)] for bound in value.args[1:3])
        low, high = (relax.const(np.array(end, np.float32)) for end in ends)
        return R.minimum(R.maximum(self.argument(value.args[0]), low), high)


class _Rejoined(Rewriter):
    def __init__(self):
        super().__init__()
        self.maxima: dict[relax.Var, tuple] = {}  # variable -> of what, and the bound

    def binding(self, var: relax.Var, value):
        """What stands for `var`."""
        if operator_of(value) == "relax.maximum" and is_scalar(value.args[1]):
            self.maxima[var] = tuple(value.args)
        return super().binding(var, value)

    def replaced(self, value):
        """What stands for an expression."""
        is_clip = operator_of(value) == "relax.minimum" and is_scalar(value.args[1])
        if not is_clip or value.args[0] not in self.maxima:
            return super().replaced(value)
        x, low = self.maxima[value.args[0]]
        bounds = (constant.value.numpy().item() for constant in (low, value.args[1]))
        return R.clip(self.argument(x), *bounds)
