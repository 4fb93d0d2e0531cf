"""Lowering: from fp32 or QDQ Relax to calls of fused kernels."""

from __future__ import annotations

import tvm

from ..kernels.intrinsics import instruction_set
from ..kernels.registry import check_schedule, layout_of
from .emit import Emitter, Lowered
from .fuse import fuse
from .layout import assign
from .read import Reader, main_of
from .record import KernelRecord, KernelTable


def lower(module: tvm.IRModule, target: tvm.target.Target, schedule: str = "auto") -> Lowered:
    """Lower ``main`` of a fp32 or QDQ Relax module to kernels for ``target``.

    Four phases: *read* the operators, *fuse* epilogues into layers, *assign* layouts, and *emit*
    one ``call_tir`` a layer, for which *realize* turns scales into integers. What no kernel takes
    stays a Relax operator in float, recorded with the reason.

    Parameters
    ----------
    module : tvm.IRModule
        From a frontend or from `relaxquant.quantize`.
    target : tvm.target.Target
        An llvm target; its features choose the instruction set.
    schedule : str
        Row of the schedule table for all layers it takes, or ``"auto"``; its layout is that of all
        feature maps.

    Raises
    ------
    InputError
        If no schedule is called ``schedule``.
    ModelError
        If the module's structure is not supported.
    """
    check_schedule(schedule)
    reader = Reader(main_of(module))
    graph = reader.graph()
    fuse(graph)
    graph.drop_dead()
    assign(graph, layout_of(schedule))
    return Emitter(graph, reader, instruction_set(target), schedule).emit()


__all__ = ["KernelRecord", "KernelTable", "Lowered", "lower"]
