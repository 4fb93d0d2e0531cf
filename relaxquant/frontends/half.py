"""A network in 16-bit floats: what GPUs run by default today, to measure integers against.

Convolutions and dense layers multiply float16 and sum up in float32, as tensor cores do; what lies
between them is float16, but for what TVM's pass leaves in float32. Inputs and outputs are as they
were. The pass is TVM's own. Kernels for its result are TVM's, ``executor="naive"``, on every
target, and ours for CUDA.
"""

from __future__ import annotations

import tvm
from tvm import relax

from ..errors import ModelError
from ..lower.read import main_of
from ..parts import joined
from ..qdq import DEQUANTIZE, QUANTIZE
from . import clips


def in_half(module: tvm.IRModule) -> tvm.IRModule:
    """The module with float16 where TVM's ``ToMixedPrecision`` puts it, weights folded.

    Parameters
    ----------
    module : tvm.IRModule
        fp32 Relax.

    Returns
    -------
    tvm.IRModule
        Its inputs and outputs stay float32.

    Raises
    ------
    ModelError
        If the module is quantized.

    Notes
    -----
    TVM's ``src/relax/transform/to_mixed_precision.cc``.
    """
    module = joined(module)
    blocks = main_of(module).body.blocks
    calls = [binding.value for block in blocks for binding in block.bindings]
    if any(isinstance(call, relax.Call) and call.op in (QUANTIZE, DEQUANTIZE) for call in calls):
        raise ModelError("a quantized module does not become float16: pass the fp32 one")
    passes = [
        relax.transform.ToMixedPrecision("float32"),
        relax.transform.FoldConstant(),
    ]
    halved = tvm.transform.Sequential(passes)(clips.parted(module))
    return relax.transform.DeadCodeElimination()(clips.rejoined(halved))
