"""What stock TVM makes of a module: for the kernel table of the naive executor."""

from __future__ import annotations

import tvm
from tvm import relax

from ..lower import KernelRecord
from ..lower.read import shape_of

REASON = "TVM has no integer lowering: float between dequantize and quantize"


def stock_records(module: tvm.IRModule) -> list[KernelRecord]:
    """One record for each operator of ``main``: all float, none scheduled.

    TVM 0.27 legalizes quantize and dequantize to float arithmetic around the float operator.
    Source: ``tvm/relax/transform/legalize_ops/qdq.py``.
    """
    records = []
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            call = binding.value
            if isinstance(call, relax.Call) and isinstance(call.op, tvm.ir.Op):
                records.append(_record(binding.var, call))
    return records


def _record(var, call) -> KernelRecord:
    name = call.op.name.removeprefix("relax.").removeprefix("nn.")
    heavy = name in ("conv2d", "matmul")
    return KernelRecord(
        name=name,
        layer=var.name,
        op="dense" if name == "matmul" else name,
        shape=f"-> {'x'.join(str(s) for s in shape_of(var)[1:])}",
        layout="NCHW",
        schedule="tvm default",
        precision="fp32",
        instructions="scalar fp32" if heavy else "",
        macs=_macs(var, call) if heavy else 0,
        reason=REASON if heavy else "",
    )


def _macs(var, call) -> int:
    weight = [int(d) for d in call.args[1].ty.shape]
    out = shape_of(var)
    if len(weight) == 2:
        return weight[0] * weight[1]
    return out[2] * out[3] * weight[0] * weight[1] * weight[2] * weight[3]
