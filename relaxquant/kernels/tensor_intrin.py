"""The instruction sets' dot products as TVM's tensor intrinsics, for blocks of `loop_conv2d`.

One for each dot product of `intrinsics`, so that what a search may use is what the kernels here
use: ``vpmaddubsw`` and ``vpmaddwd`` where the weights are proven not to saturate it, ``vpdpbusd``,
``sdot``, and for fp32 a vector multiply-add. They are built, not parsed from TVMScript, in
milliseconds.
"""

from __future__ import annotations

import functools
import re

import tvm
from tvm.s_tir import TensorIntrin

from .intrinsics import DotProduct, InstructionSet
from .pack import channel_quads
from .spec import ConvSpec, ConvWeights
from .tir import T, lanes_at, prim_func, store


def dot_product(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> DotProduct | None:
    """The dot product of four that is exact for all of a layer's weights; None for fp32.

    Of one step: chains of them are the affair of the kernels that are written by hand.
    """
    if spec.precision == "fp32":
        return None
    return isa.dot_for(channel_quads(weights.weight), spec.data.largest)


def intrinsic(isa: InstructionSet, dot: DotProduct | None) -> str:
    """Name of the tensor intrinsic, which is registered with TVM."""
    word = re.sub(r"\W+", "_", dot.name) if dot else "multiply_add"
    name = f"relaxquant.{isa.name}.{word}"
    _register(name, isa.lanes, dot)
    return name


def register_all(isa: InstructionSet) -> None:
    """Register all of an instruction set, as TVM must know those of every trace that it reads."""
    for dot in (None, *isa.dots):
        intrinsic(isa, dot)


@functools.cache
def _register(name: str, lanes: int, dot: DotProduct | None) -> None:
    loops, vectors = _Body(lanes, dot, _loops), _Body(lanes, dot, _vectors)
    TensorIntrin.register(name, loops.function(), vectors.function(), override=True)


class _Body:
    """One vector of accumulators ``c``, an activation or four ``a``, a vector of weights ``b``."""

    def __init__(self, lanes: int, dot: DotProduct | None, emit):
        self.lanes, self.dot, self.emit = lanes, dot, emit
        self.taps = 4 if dot else 1
        self.dtypes = ("uint8", "int8", "int32") if dot else ("float32",) * 3
        self.inner = (self.taps,) if dot else ()

    def function(self) -> tvm.tirx.PrimFunc:
        return prim_func(self._emit)

    def _emit(self) -> None:
        shapes = ((self.taps,), (self.lanes, *self.inner), (self.lanes,))
        a, b, c = (
            T.arg(name, T.Buffer(shape, dtype, offset_factor=1))
            for name, shape, dtype in zip("abc", shapes, self.dtypes, strict=True)
        )
        with T.sblock("root"):
            whole = [slice(0, extent) for extent in (self.lanes, *self.inner)]
            T.reads([c[0 : self.lanes], a[0 : self.taps], b[tuple(whole)]])
            T.writes([c[0 : self.lanes]])
            self.emit(self, a, b, c)


def _loops(body: _Body, a, b, c) -> None:
    """What is matched: the same multiply-adds one by one."""
    with T.serial(body.lanes) as lane:
        if body.dot is None:
            with T.sblock("update"):
                i = T.axis.spatial(body.lanes, lane)
                store(c, [i], c[i] + a[0] * b[i])
            return
        with T.serial(body.taps) as tap, T.sblock("update"):
            i, k = T.axis.spatial(body.lanes, lane), T.axis.reduce(body.taps, tap)
            store(c, [i], c[i] + T.cast(a[k], "int32") * T.cast(b[i, k], "int32"))


def _vectors(body: _Body, a, b, c) -> None:
    """What takes its place."""
    at = lanes_at(0, body.lanes)
    if body.dot is None:
        store(c, [at], c[at] + T.broadcast(a[0], body.lanes) * b[at])
        return
    x = T.reinterpret("int32", a[lanes_at(0, 4)])
    w = b.vload([0, 0], f"int8x{4 * body.lanes}")
    store(c, [at], body.dot.emit(c[at], x, w))
