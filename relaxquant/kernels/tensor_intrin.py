"""The instruction sets' dot products as TVM's tensor intrinsics, for blocks of `loop_conv2d`.

One for each dot product of `intrinsics`, and for each two of them between which a table decides
(`dot_choice`), so that what a search may use is what the kernels here use: ``vpmaddubsw`` and
``vpmaddwd`` where the weights are proven not to saturate it, as many fours of them in int16 as
allowed, ``vpdpbusd``, ``sdot``, and for fp32 a vector multiply-add. They are built, not parsed from
TVMScript, in milliseconds.
"""

from __future__ import annotations

import functools
import json
import re

from tvm.s_tir import TensorIntrin

from .dot_choice import DotChoice, choose_dots, dot_for_all
from .intrinsics import DotProduct, InstructionSet
from .loop_conv2d import either_way
from .pack import pack_conv
from .spec import ConvSpec, ConvWeights
from .tir import BLOCK, CUDA, T, lanes_at, prim_func, store
from .tvm_intrinsics import import_intrinsics

FOUR = 4
DP4A = "dp4a_u8s8s32"  # TVM's own, for CUDA


def dot_products(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> DotChoice:
    """The dot products of a layer: as the direct schedule's, by tiles of 16 output channels."""
    everywhere = dot_for_all(spec, weights, isa)
    return choose_dots(spec, everywhere, isa, pack_conv(spec, weights.weight, BLOCK))


def intrinsic(isa: InstructionSet, dots: DotChoice) -> str:
    """Name of the tensor intrinsic, which is registered with TVM; empty for fp32 on a GPU."""
    if isa.machine == CUDA:
        import_intrinsics()
        return DP4A if dots.everywhere else ""
    words = [re.sub(r"\W+", "_", dot.name) for dot in (dots.often, dots.everywhere) if dot]
    name = f"relaxquant.{isa.name}.{'.else.'.join(words) or 'multiply_add'}"
    _register(name, isa.lanes, dots.everywhere, dots.often)
    return name


def uses(trace: str, name: str) -> bool:
    """Whether a trace, as JSON, is one of a tensor intrinsic; any is where ``name`` is empty."""
    return not name or json.dumps(name) in trace


def register_all(isa: InstructionSet) -> None:
    """Register all of an instruction set, as TVM must know those of every trace that it reads."""
    for last, everywhere in enumerate(isa.dots):
        for often in (None, *isa.dots[:last]):
            intrinsic(isa, DotChoice(everywhere, often))
    intrinsic(isa, DotChoice(None))


@functools.cache
def _register(
    name: str, lanes: int, everywhere: DotProduct | None, often: DotProduct | None
) -> None:
    body = _FloatBody(lanes) if everywhere is None else _Body(lanes, everywhere, often)
    TensorIntrin.register(name, prim_func(body.loops), prim_func(body.vectors), override=True)


class _FloatBody:
    """One vector of accumulators ``c``, an activation ``a``, a vector of weights ``b``."""

    def __init__(self, lanes: int):
        self.lanes = lanes

    def loops(self) -> None:
        """What is matched."""
        a, b, c = self._buffers()
        with T.sblock("root"):
            self._regions(a, b, c)
            with T.serial(self.lanes) as lane, T.sblock("update"):
                i = T.axis.spatial(self.lanes, lane)
                store(c, [i], c[i] + a[0] * b[i])

    def vectors(self) -> None:
        """What takes its place."""
        a, b, c = self._buffers()
        at = lanes_at(0, self.lanes)
        with T.sblock("root"):
            self._regions(a, b, c)
            store(c, [at], c[at] + T.broadcast(a[0], self.lanes) * b[at])

    def _buffers(self) -> list:
        sizes = {"a": 1, "b": self.lanes, "c": self.lanes}
        return [_part(name, (size,), "float32") for name, size in sizes.items()]

    def _regions(self, a, b, c) -> None:
        T.reads([c[0 : self.lanes], a[0:1], b[0 : self.lanes]])
        T.writes([c[0 : self.lanes]])


class _Body:
    """One vector of accumulators ``c``; as many fours of activations ``a``, and vectors of weights
    ``b``, as the longer chain of its dot products has; ``p``, if there are two of them: whether the
    faster one is exact.
    """

    def __init__(self, lanes: int, everywhere: DotProduct, often: DotProduct | None):
        self.lanes, self.everywhere, self.often = lanes, everywhere, often
        self.chain = max(dot.chain for dot in (everywhere, often) if dot)

    def loops(self) -> None:
        """What is matched: the same multiply-adds one by one."""
        a, b, c, p = self._buffers()
        with T.sblock("root"):
            self._regions(a, b, c, p)
            with T.serial(self.lanes) as lane:
                if self.chain == 1:  # as a loop of one would not be found
                    self._update(a, b, c, p, lane, None)
                    return
                with T.serial(self.chain) as link:
                    self._update(a, b, c, p, lane, link)

    def _update(self, a, b, c, p, lane, link) -> None:
        with T.serial(FOUR) as tap, T.sblock("update"):
            i = T.axis.spatial(self.lanes, lane)
            k = None if link is None else T.axis.reduce(self.chain, link)
            four = T.axis.reduce(FOUR, tap)
            x = a[four] if k is None else a[k * FOUR + four]
            y = b[i, four] if k is None else b[k, i, four]
            product = T.cast(x, "int32") * T.cast(y, "int32")
            store(c, [i], c[i] + (product if p is None else either_way(p[0], product)))

    def vectors(self) -> None:
        """What takes its place."""
        a, b, c, p = self._buffers()
        with T.sblock("root"):
            self._regions(a, b, c, p)
            if p is None:
                self._accumulate(self.everywhere, a, b, c)
                return
            with T.If(p[0] != T.uint8(0)):
                with T.Then():
                    self._accumulate(self.often, a, b, c)
                with T.Else():
                    self._accumulate(self.everywhere, a, b, c)

    def _accumulate(self, dot: DotProduct, a, b, c) -> None:
        at, size, links = lanes_at(0, self.lanes), FOUR * self.lanes, range(self.chain)
        xs = [T.reinterpret("int32", a[lanes_at(link * FOUR, FOUR)]) for link in links]
        places = [[0, 0]] if self.chain == 1 else [[link, 0, 0] for link in links]
        ws = [b.vload(place, f"int8x{size}") for place in places]
        store(c, [at], dot.accumulate(c[at], xs, ws))

    def _buffers(self) -> list:
        links = (self.chain,) if self.chain > 1 else ()
        return [
            _part("a", (self.chain * FOUR,), "uint8"),
            _part("b", (*links, self.lanes, FOUR), "int8"),
            _part("c", (self.lanes,), "int32"),
            _part("p", (1,), "uint8") if self.often else None,
        ]

    def _regions(self, a, b, c, p) -> None:
        whole = tuple(slice(0, extent) for extent in b.shape)
        flags = [p[0:1]] if p is not None else []
        # In the order in which they are read, as TVM compares them.
        T.reads([c[0 : self.lanes], *flags, a[0 : self.chain * FOUR], b[whole]])
        T.writes([c[0 : self.lanes]])


def _part(name: str, shape: tuple, dtype: str):
    """An argument that is part of a larger buffer, whose strides may be anything."""
    strides = [T.int32() for _ in shape[:-1]] + [1] if len(shape) > 2 else None
    return T.arg(name, T.Buffer(shape, dtype, strides=strides, offset_factor=1))
