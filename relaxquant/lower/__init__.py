"""Lowering: from float or QDQ Relax to calls of fused kernels."""

from __future__ import annotations

from dataclasses import dataclass

import tvm

from ..errors import InputError, did_you_mean
from ..kernels.fixed_point import FLOAT, REQUANTIZE
from ..kernels.intrinsics import instruction_set
from ..kernels.registry import AUTO, check_schedule
from ..kernels.spec import ConvSpec, ConvWeights
from ..kernels.tir import CPU
from ..kernels.tuned import Tuned
from .emit import Emitter, Lowered
from .layout import stays_with_tvm
from .prepare import prepared
from .realize import conv_spec, conv_weights
from .record import KernelRecord, KernelTable, functions_of, shape_text
from .simulate import simulate


def lower(
    module: tvm.IRModule,
    target: tvm.target.Target,
    schedule: str = "auto",
    tuned: Tuned | None = None,
    requantize: str = FLOAT,
) -> Lowered:
    """Lower ``main`` of a float or QDQ Relax module to kernels for ``target``.

    Five phases: *read* the operators, *fuse* epilogues into layers, find the *ranges* of values,
    *assign* layouts, and *emit* one ``call_tir`` a layer, for which *realize* turns scales into
    integers. What no kernel takes stays a Relax operator in float, recorded with the reason; so
    does a layer of int16 whose sums are not proven to fit int32 (*overflow*).

    Parameters
    ----------
    module : tvm.IRModule
        From a frontend or from `relaxquant.quantize`. What is float16 has kernels for CUDA, and
        stays with TVM elsewhere.
    target : tvm.target.Target
        Of kind llvm or cuda; its features, or compute capability, choose the instruction set.
    schedule : str
        Row of the schedule table for all layers it takes, or ``"auto"``; its layout is that of all
        feature maps.
    tuned : Tuned, optional
        What ``"auto"`` asks before the rules.
    requantize : str
        ``"float"``, or ``"tflite"`` for TFLite's integer arithmetic.

    Raises
    ------
    InputError
        If no schedule is called ``schedule``, or there is no such requantization.
    ModelError
        If the module's structure is not supported.
    """
    check_schedule(schedule)
    check_requantize(requantize)
    isa = instruction_set(target)
    on_cpu = isa.machine == CPU
    reader, graph = prepared(module, schedule, requantize, halos=on_cpu, half=not on_cpu)
    return Emitter(graph, reader, isa, schedule, tuned).emit()


@dataclass(frozen=True)
class ConvLayer:
    """A convolution or dense layer as a schedule is given it, before one is chosen."""

    label: str
    shape: str
    spec: ConvSpec
    weights: ConvWeights


def conv_layers(module: tvm.IRModule, machine: str = CPU) -> list[ConvLayer]:
    """The layers of a module that a schedule is chosen for by ``"auto"``, in order.

    Parameters
    ----------
    module : tvm.IRModule
        As for `lower`; its batch must be known.
    machine : str
        ``"cpu"`` or ``"cuda"``: images lie otherwise in the memory of either, and only the latter
        has kernels for float16.

    Raises
    ------
    ModelError
        As `lower`.
    """
    _, graph = prepared(module, AUTO, halos=machine == CPU, half=machine != CPU)
    batch = graph.inputs[0].shape[0]
    return [
        ConvLayer(node.label, shape_text(node), conv_spec(node, batch), conv_weights(node))
        for node in graph.nodes
        if node.op == "conv2d" and not stays_with_tvm(node)
    ]


def check_requantize(name: str) -> None:
    """Raise InputError, with the nearest name, unless it is one of `fixed_point.REQUANTIZE`."""
    if name not in REQUANTIZE:
        hint = did_you_mean(name, REQUANTIZE)
        known = ", ".join(map(repr, REQUANTIZE))
        raise InputError(f"requantize must be one of {known}, not {name!r}{hint}")


__all__ = [
    "ConvLayer",
    "KernelRecord",
    "KernelTable",
    "Lowered",
    "check_requantize",
    "conv_layers",
    "functions_of",
    "lower",
    "simulate",
]
