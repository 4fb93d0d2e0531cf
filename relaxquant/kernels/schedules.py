"""The rows of the schedule table, best first: what each one needs from a layer."""

from __future__ import annotations

import numpy as np

from . import conv2d_nchw_spatial_pack as direct
from . import conv2d_reference as reference
from . import depthwise_nchw_spatial_pack as depthwise
from .epilogue import epilogue_parameters
from .intrinsics import InstructionSet
from .pack import border_correction, channel_quads, pack_conv
from .registry import Implementation, register
from .spec import ConvSpec, ConvWeights
from .tile import choose_tile

PLAIN = {"fp32": "fp32 multiply-add", "int8": "int32 multiply-add"}


@register(depthwise.NAME)
def depthwise_spatial_pack(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet
) -> Implementation | None:
    """One kernel a channel: vectors of channels, no dot product."""
    if not depthwise.applies(spec):
        return None
    packed = [depthwise.pack_weight(weights.weight)]
    if spec.pads_with_zero_point:
        packed.append(depthwise.border_correction(spec, weights.weight))
    return Implementation(
        schedule=depthwise.NAME,
        instructions=PLAIN[spec.precision],
        key=("depthwise", spec, isa.name),
        build=lambda: depthwise.build(spec, isa),
        arguments=_arguments(spec, weights, packed),
    )


@register(direct.NAME)
def spatial_pack(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet
) -> Implementation | None:
    """Direct convolution, register tiles of output channels by pixels."""
    if not direct.applies(spec):
        return None
    dot = None
    if spec.precision == "int8":
        dot = isa.dot_for(channel_quads(weights.weight))
    tile = choose_tile(spec, isa, dot)
    packed = [pack_conv(spec, weights.weight, tile.vectors * isa.lanes)]
    if spec.pads_with_zero_point:
        packed.append(border_correction(spec, weights.weight))
    return Implementation(
        schedule=direct.NAME,
        instructions=dot.name if dot else PLAIN["fp32"],
        key=("direct", spec, isa.name, dot.name if dot else None, tile),
        build=lambda: direct.build(spec, isa, dot, tile),
        arguments=_arguments(spec, weights, packed),
    )


@register(reference.NAME)
def plain_loops(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> Implementation:
    """Scalar loops for everything else."""
    return Implementation(
        schedule=reference.NAME,
        instructions=PLAIN[spec.precision],
        key=("reference", spec, isa.name),
        build=lambda: reference.build(spec, isa),
        arguments=_arguments(spec, weights, [weights.weight]),
    )


def _arguments(spec: ConvSpec, weights: ConvWeights, packed: list[np.ndarray]) -> list:
    """Data, packed weights, bias and multiplier, the residual where there is one, bounds."""
    *scaling, bounds = epilogue_parameters(spec, weights)
    residual = [1] if spec.epilogue.residual is not None else []
    return [0, *packed, *scaling, *residual, bounds]
