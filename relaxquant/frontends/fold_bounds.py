"""What bounds a tensor or pads it, in the operator that lowering reads."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.relax import op as R

from .rewriter import Rewriter, is_scalar, operator_of

CONV2D = "relax.nn.conv2d"


class Clips(Rewriter):
    """``R.clip`` for what bounds a tensor by constants: maximum, minimum, and both."""

    def __init__(self):
        super().__init__()
        self.bounds: dict[relax.Var, tuple] = {}  # clipped variable -> (source, low, high)

    def binding(self, var: relax.Var, value):
        """One clip for each bound; the first of two that follow each other is left to die."""
        found = self._bound(value)
        if found is None:
            return super().binding(var, value)
        source, low, high = found
        source = self.argument(source)
        if source in self.bounds:
            inner, before, after = self.bounds[source]
            # As the operators do it one after the other: the later bound decides.
            source, low, high = inner, min(max(before, low), high), min(max(after, low), high)
        is_relu = (low, high) == (0.0, np.inf)
        new = self.emit(R.nn.relu(source) if is_relu else R.clip(source, low, high), var)
        self.bounds[new] = (source, low, high)
        return new

    def _bound(self, value) -> tuple | None:
        """(source, low, high) of a maximum or minimum with a scalar constant."""
        name, args = (operator_of(value) or "").removeprefix("relax."), getattr(value, "args", ())
        if name not in ("maximum", "minimum") or len(args) != 2:
            return None
        constant = args[1]
        if not is_scalar(constant):
            return None
        bound = float(constant.value.numpy().reshape(()))
        return (args[0], bound, np.inf) if name == "maximum" else (args[0], -np.inf, bound)


class FoldPads(Rewriter):
    """Zeros around an image as the padding of the convolution that reads it.

    In QDQ the padded image is quantized first: its padding then is the zero point, which is what a
    quantized convolution pads with.
    """

    def rewrite(self, module: tvm.IRModule) -> tvm.IRModule:
        """Collects what each variable is bound to, first."""
        blocks = module["main"].body.blocks
        self.bound = {binding.var: binding.value for block in blocks for binding in block.bindings}
        return super().rewrite(module)

    def binding(self, var: relax.Var, value):
        """A convolution that pads by itself."""
        if operator_of(value) != CONV2D or value.attrs["data_layout"] != "NCHW":
            return super().binding(var, value)
        pair, pad = self._above(value.args[0])
        if pad is None:
            return super().binding(var, value)
        data = self.argument(pad.args[0])
        for call in pair:
            data = self.bb.emit(relax.Call(call.op, [data, *call.args[1:]], call.attrs))
        top, left, bottom, right = (int(size) for size in value.attrs["padding"])
        above, below, before, after = (int(size) for size in pad.attrs["pad_width"][4:])
        padding = [top + above, left + before, bottom + below, right + after]
        names = ("strides", "dilation", "groups", "data_layout", "kernel_layout", "out_dtype")
        attrs = {name: value.attrs[name] for name in names}
        weight = self.argument(value.args[1])
        return self.emit(R.nn.conv2d(data, weight, padding=padding, **attrs), var)

    def _above(self, expression) -> tuple[list[relax.Call], relax.Call | None]:
        """Quantize and dequantize above an expression, and the pad by zeros above these."""
        pair: list[relax.Call] = []
        call = self.bound.get(expression)
        if operator_of(call) == "relax.dequantize":
            quantize = self.bound.get(call.args[0])
            if operator_of(quantize) != "relax.quantize" or not _same_steps(call, quantize):
                return [], None
            pair = [quantize, call]
            call = self.bound.get(quantize.args[0])
        return pair, call if operator_of(call) == "relax.nn.pad" and _is_border(call) else None


def _same_steps(*calls: relax.Call) -> bool:
    """Whether a quantize and a dequantize have one scale and one zero point, the same."""
    parameters = [arg for call in calls for arg in call.args[1:]]
    if not all(map(is_scalar, parameters)):
        return False
    first, second = ([float(arg.value.numpy().item()) for arg in call.args[1:]] for call in calls)
    return first == second


def _is_border(pad: relax.Call) -> bool:
    widths = [int(size) for size in pad.attrs["pad_width"]]
    zeros = pad.attrs["pad_mode"] == "constant" and float(pad.attrs["pad_value"]) == 0
    return zeros and len(widths) == 8 and not any(widths[:4]) and min(widths) >= 0
