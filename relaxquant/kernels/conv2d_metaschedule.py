"""Schedule ``metaschedule``: what TVM's MetaSchedule made of the plain loops, replayed.

Loop nest: whatever the search found, see `relaxquant.tune.metaschedule`; of the shape of
``nchw_spatial_pack``, with tiles of rows as well as columns.

Packing: as ``nchw_spatial_pack``, in tiles of 16 output channels.

What limits it: the border is added in memory, in a pass of its own; weights of few bits are not
packed, and weights are not prefetched.

A trace belongs to one layer, one instruction set and one dot product, so the schedule takes only
layers that were tuned: ``rq.compile(..., tuned=rq.tune(..., method="metaschedule"))``.

Source: Shao et al., "Tensor Program Optimization with Probabilistic Programs", NeurIPS 2022;
``tvm/s_tir/meta_schedule``.
"""

from __future__ import annotations

import hashlib
import json

import tvm
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import Trace

from . import loop_conv2d
from .dot_choice import DotChoice
from .intrinsics import InstructionSet
from .registry import Implementation, register_replayed
from .spec import ConvSpec, ConvWeights
from .tensor_intrin import dot_products, intrinsic, uses
from .tuned import METASCHEDULE as NAME


def workload(spec: ConvSpec, dots: DotChoice) -> tvm.IRModule:
    """What is searched over and replayed on."""
    return tvm.IRModule({"main": loop_conv2d.function(spec, dots)})


@register_replayed(NAME)
def from_trace(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, trace: str
) -> Implementation | None:
    """The kernel that a trace makes of a layer; None where it was made for another dot product.

    Parameters
    ----------
    spec, weights, isa
        As for any rule.
    trace : str
        JSON, as `tvm.s_tir.schedule.Trace.as_json` gives it.
    """
    if not loop_conv2d.applies(spec):
        return None
    dots = dot_products(spec, weights, isa)
    if not uses(trace, intrinsic(isa, dots)):
        return None
    digest = hashlib.sha256(trace.encode()).hexdigest()
    return Implementation(
        schedule=NAME,
        instructions=str(dots),
        key=(NAME, spec, isa.name, digest),
        build=lambda: replayed(spec, dots, trace),
        arguments=loop_conv2d.arguments(spec, weights, dots),
    )


def replayed(spec: ConvSpec, dots: DotChoice, trace: str) -> tvm.tirx.PrimFunc:
    """The plain loops of a layer, transformed as a trace says."""
    schedule = Schedule(workload(spec, dots))
    Trace.apply_json_to_schedule(json.loads(trace), schedule)
    return schedule.mod["main"].without_attr("global_symbol")
