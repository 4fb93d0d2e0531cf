"""What stock TVM makes of a module: for the kernel table of the naive executor."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import tvm
from tvm import relax

from ..lower import KernelRecord, functions_of
from ..lower.read import dtype_of, shape_of

REASON = "TVM has no integer lowering: float between dequantize and quantize"


def stock_records(module: tvm.IRModule) -> list[KernelRecord]:
    """One record for each operator of ``main``: all float, none scheduled.

    TVM 0.27 legalizes quantize and dequantize to float arithmetic around the float operator.
    Source: ``tvm/relax/transform/legalize_ops/qdq.py``.
    """
    records = []
    functions = functions_of(module)
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            call = binding.value
            if isinstance(call, relax.Call) and isinstance(call.op, tvm.ir.Op):
                record = _record(binding.var, call)
                records.append(replace(record, name=functions.get(binding.var, record.name)))
    return records


def _record(var, call) -> KernelRecord:
    name = call.op.name.removeprefix("relax.").removeprefix("nn.")
    heavy = name in ("conv2d", "matmul")
    dtype = dtype_of(call.args[0]) if call.args else "float32"
    precision = "fp16" if dtype == "float16" else "fp32"
    if heavy and not dtype.startswith("float"):
        precision = dtype  # an integer operator, which no frontend makes, stays one
    return KernelRecord(
        name=name,
        layer=var.name,
        op="dense" if name == "matmul" else name,
        shape=f"-> {'x'.join(str(s) for s in shape_of(var)[1:])}",
        layout="NCHW",
        schedule="tvm default",
        precision=precision,
        instructions=f"scalar {precision}" if heavy else "",
        macs=_macs(var, call) if heavy else 0,
        reason=REASON if heavy and precision == "fp32" else "",
    )


def _macs(var, call) -> int:
    weight = [int(d) for d in call.args[1].ty.shape]
    out = shape_of(var)
    if call.op.name == "relax.matmul":
        return prod(out[1:]) * weight[-2]
    return prod(out[2:]) * prod(weight)
