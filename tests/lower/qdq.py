"""Small QDQ networks written operator by operator, for what the quantizer would not write."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm
from tvm import relax
from tvm.relax import op as R


def module(shape: tuple[int, ...], body: Callable[[Builder, relax.Var], relax.Expr]):
    """A module whose ``main`` computes ``body(builder, x)`` of a float32 input."""
    bb = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    with bb.function("main", [x]):
        with bb.dataflow():
            y = bb.emit_output(body(Builder(bb), x))
        bb.emit_func_output(y)
    return bb.get()


class Builder:
    """Emits quantize, dequantize and layers."""

    def __init__(self, bb: relax.BlockBuilder):
        self.bb = bb

    def pair(self, x, scale: float, dtype: str, largest: int | None = None):
        """``x`` in steps of ``scale``, zero point 0, clipped to ``largest`` steps before."""
        if largest is not None:
            x = self.bb.emit(R.clip(x, -largest * scale, largest * scale))
        return self._pair(x, np.float32(scale), np.zeros((), dtype))

    def narrow(self, x, scale: np.ndarray, dtype: str):
        """``x`` (N, C, ...) as a sum of ``dtype`` holds it, in steps of ``scale`` (C,)."""
        return self._pair(x, scale.astype(np.float32), np.zeros(len(scale), dtype))

    def _pair(self, x, scale, zero):
        parameters = (relax.const(scale), relax.const(zero))
        quantized = self.bb.emit(R.quantize(x, *parameters, axis=1, out_dtype=str(zero.dtype)))
        return self.bb.emit(R.dequantize(quantized, *parameters, axis=1))

    def weight(self, weight: np.ndarray, scale: np.ndarray):
        """(O, I, KH, KW) integers with a scale for each output channel."""
        zero = relax.const(np.zeros(len(scale), weight.dtype))
        scale = relax.const(scale.astype(np.float32))
        return self.bb.emit(R.dequantize(relax.const(weight), scale, zero, axis=0))

    def conv2d(self, x, weight: np.ndarray, scale: np.ndarray, **attrs):
        """Convolution by quantized weights."""
        return self.bb.emit(R.nn.conv2d(x, self.weight(weight, scale), **attrs))

    def bias(self, x, bias: np.ndarray):
        """Bias of a convolution."""
        return self.bb.emit(R.add(x, relax.const(bias.astype(np.float32).reshape(1, -1, 1, 1))))


def compiled(mod: tvm.IRModule, **settings):
    """The library of a module, one thread."""
    import relaxquant as rq

    return rq.compile(mod, threads=1, **settings)
