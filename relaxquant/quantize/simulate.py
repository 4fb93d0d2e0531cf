"""The float network that computes what a quantized one does: fake quantization, for a look inside.

Nothing is stored in integers: activations are rounded to multiples of their scales and clipped,
weights are replaced by the values their integers stand for. Integer kernels sum exactly, so that
single values end up one step away, next to a half.
"""

from __future__ import annotations

import numpy as np
from tvm import IRModule, relax
from tvm.relax import op as R

from .graph import Node, read_graph, rebuild


def simulate(qmod: IRModule) -> IRModule:
    """Write the quantize/dequantize pairs of a QDQ module as float operators.

    Parameters
    ----------
    qmod : IRModule
        QDQ Relax, from `insert_qdq` or a frontend; not changed.

    Returns
    -------
    IRModule
        float32 Relax without ``R.quantize`` and ``R.dequantize``.

    Notes
    -----
    What relay.quantize returned with ``do_simulation=True``: ``simulated_quantize`` in place of
    integers (TVM's ``src/relay/quantize/quantize.cc``, Relay, removed).
    """
    simulated = rebuild(qmod, read_graph(qmod), rewrite=_rewrite)
    simulated = relax.transform.CanonicalizeBindings()(simulated)
    return relax.transform.DeadCodeElimination()(simulated)


def _rewrite(bb: relax.BlockBuilder, node: Node, call: relax.Call) -> relax.Expr:
    if node.op == "quantize":
        return _rounded(bb, node, call)
    if node.op != "dequantize":
        return call
    # An activation is in real units already.
    return call.args[0] if node.inputs else relax.const(_dequantized(call))


def _rounded(bb: relax.BlockBuilder, node: Node, call: relax.Call) -> relax.Expr:
    scale, zero_point = (_along(call, index) for index in (1, 2))
    info = np.iinfo(str(call.attrs["out_dtype"]))
    steps = bb.emit(R.divide(call.args[0], relax.const(scale)), name_hint=f"{node.name}_steps")
    steps = bb.emit(R.round(steps), name_hint=f"{node.name}_whole")
    for bound, end in ((R.maximum, info.min), (R.minimum, info.max)):
        limit = relax.const((end - zero_point.astype(np.int64)).astype(np.float32))
        steps = bb.emit(bound(steps, limit), name_hint=f"{node.name}_clip")
    return R.multiply(steps, relax.const(scale))


def _dequantized(call: relax.Call) -> np.ndarray:
    scale, zero_point = (_along(call, index) for index in (1, 2))
    codes = call.args[0].value.numpy().astype(np.int64) - zero_point.astype(np.int64)
    return (codes * scale.astype(np.float64)).astype(np.float32)


def _along(call: relax.Call, index: int) -> np.ndarray:
    """A scale or zero point, shaped to broadcast over the call's data."""
    values, ndim = call.args[index].value.numpy(), int(call.args[0].ty.ndim)
    if values.size == 1:
        return values.reshape(())
    axis = int(call.attrs["axis"]) % ndim
    return np.expand_dims(values, tuple(i for i in range(ndim) if i != axis))
