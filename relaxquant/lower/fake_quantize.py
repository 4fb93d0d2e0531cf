"""Quantize and dequantize in real units: what is left of them beside what kernels take.

An activation with a scale for each channel, for one, is nothing that a kernel stores. It is rounded
to multiples of its scales and clipped, and stays a tensor of real values.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.relax import op as R

from ..errors import ModelError
from ..qdq import DEQUANTIZE, QUANTIZE


def fake_quantized(bb: relax.BlockBuilder, call: relax.Call, name: str) -> relax.Expr:
    """A call in float operators if it is a quantize or dequantize, else the call.

    Parameters
    ----------
    bb : relax.BlockBuilder
        Where operators are emitted.
    call : relax.Call
        Its operand may be the result of another `fake_quantized`.
    name : str
        What the call computes.

    Raises
    ------
    ModelError
        If a scale or zero point is computed at run time.
    """
    if call.op not in (QUANTIZE, DEQUANTIZE):
        return call
    scale, zero_point = (_along(call, index, name) for index in (1, 2))
    if call.op == QUANTIZE:
        return _rounded(bb, call, scale, zero_point)
    if "float" in str(call.args[0].ty.dtype):
        return call.args[0]  # in real units already
    steps = bb.emit(R.astype(call.args[0], "float32"))
    steps = bb.emit(R.subtract(steps, relax.const(zero_point.astype(np.float32))))
    return R.multiply(steps, relax.const(scale))


def _rounded(bb: relax.BlockBuilder, call, scale: np.ndarray, zero_point: np.ndarray):
    info = np.iinfo(str(call.attrs["out_dtype"]))
    steps = bb.emit(R.divide(call.args[0], relax.const(scale)))
    steps = bb.emit(R.round(steps))
    for bound, end in ((R.maximum, info.min), (R.minimum, info.max)):
        limit = relax.const((end - zero_point.astype(np.int64)).astype(np.float32))
        steps = bb.emit(bound(steps, limit))
    return R.multiply(steps, relax.const(scale))


def _along(call: relax.Call, index: int, name: str) -> np.ndarray:
    """A scale or zero point, shaped to broadcast over the call's data."""
    if not isinstance(call.args[index], tvm.ir.GenericConst):
        raise ModelError(f"{name}: scales and zero points must be constants to be simulated")
    values, ndim = call.args[index].value.numpy(), int(call.args[0].ty.ndim)
    if values.size == 1:
        return values.reshape(())
    axis = int(call.attrs["axis"]) % ndim
    return np.expand_dims(values, tuple(i for i in range(ndim) if i != axis))
