"""Schedule ``reference``: plain loops for what no other schedule takes (odd groups, plain int8).

Correct for every shape, group, layout and precision, and slow: one scalar multiply-add at a
time. ``lib.kernels`` names it, so that nobody wonders where the time went.
"""

from __future__ import annotations

import tvm

from .epilogue import Epilogue, conv_arguments
from .intrinsics import InstructionSet
from .registry import Implementation, register
from .spec import ConvSpec, ConvWeights, without_zero_points
from .tile import Tile
from .tir import BLOCK, CPU, CUDA, T, arg, batch_extent, lanes_at, local, prim_func, store

NAME = "reference"


@register(
    NAME,
    precisions=("fp32", "fp16", "int8", "int16"),
    weight_zero_points=True,
    machines=(CPU, CUDA),
)
def plain_loops(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, _tile: Tile | None = None
) -> Implementation:
    """Scalar loops for everything else."""
    spec, weights = without_zero_points(spec, weights)
    weight_dtype = str(weights.weight.dtype)
    return Implementation(
        schedule=NAME,
        instructions=f"{'int32' if spec.is_integer else 'fp32'} multiply-add",
        key=("reference", spec, isa.name, weight_dtype),
        build=lambda: build(spec, isa, weight_dtype),
        arguments=conv_arguments(spec, weights, [weights.weight]),
    )


def build(spec: ConvSpec, isa: InstructionSet, weight_dtype: str) -> tvm.tirx.PrimFunc:
    """The convolution as a PrimFunc, for weights of ``weight_dtype``.

    Arguments: data, weight (O, I / groups, KH, KW), bias, [multiplier], [residual], bounds,
    output. Padding taps read the zero point, so no border correction is needed.
    """
    return prim_func(lambda: _Reference(spec, isa, weight_dtype).emit())


class _Reference:
    def __init__(self, spec: ConvSpec, isa: InstructionSet, weight_dtype: str):
        self.spec, self.isa, self.weight_dtype = spec, isa, weight_dtype
        self.in_group = spec.data.channels // spec.groups
        self.out_group = spec.out.channels // spec.groups

    def emit(self) -> None:
        spec, lanes = self.spec, self.isa.lanes
        batch = batch_extent(spec.batch)
        self.data = arg("data", spec.data.physical_shape(batch), spec.data.dtype)
        shape = (spec.out.channels, self.in_group, *spec.window.kernel)
        self.weight = arg("weight", shape, self.weight_dtype)
        epilogue = Epilogue(spec, self.isa, batch)
        self.dtype = epilogue.bias.dtype
        blocks, height = spec.out.padded_channels // BLOCK, spec.out.height
        with T.parallel(batch * blocks * height) as task:
            n, block, oh = task // (blocks * height), task // height % blocks, task % height
            with T.serial(spec.out.width) as ow, T.serial(BLOCK // lanes) as vector:
                channel = block * BLOCK + vector * lanes
                self.acc = local(lanes, self.dtype)
                store(self.acc, [lanes_at(0, lanes)], epilogue.initial(channel))
                with T.serial(lanes) as lane, T.If(channel + lane < spec.out.channels), T.Then():
                    self._reduce(n, channel + lane, lane, oh, ow)
                epilogue.finish(self.acc[lanes_at(0, lanes)], n, channel, oh, ow)

    def _reduce(self, n, channel, lane, oh, ow) -> None:
        window, data = self.spec.window, self.spec.data
        first = channel // self.out_group * self.in_group
        with (
            T.serial(self.in_group) as ic,
            T.serial(window.kernel[0]) as kh,
            T.serial(window.kernel[1]) as kw,
        ):
            ih = oh * window.strides[0] - window.padding[0] + kh * window.dilation[0]
            iw = ow * window.strides[1] - window.padding[1] + kw * window.dilation[1]
            inside = T.And(T.And(ih >= 0, ih < data.height), T.And(iw >= 0, iw < data.width))
            x = T.if_then_else(
                inside,
                T.cast(self.data[tuple(data.element_at(n, first + ic, ih, iw))], self.dtype),
                tvm.tirx.const(data.zero_point, self.dtype),
            )
            w = T.cast(self.weight[channel, ic, kh, kw], self.dtype)
            store(self.acc, [lane], self.acc[lane] + x * w)
