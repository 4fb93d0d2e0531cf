"""From PrimFuncs on threads to a CUDA module, with TVM's faults worked around.

TVM 0.27's code generation for CUDA remembers by its text what it loaded as a vector, and uses it
again within the same braces, stores in between or not. So kernels read registers that change one by
one (`tir.update`), and registers are not shared by buffers that live one after the other: a buffer
is then stored before it is loaded, once. NVIDIA's compiler assigns registers by itself.
"""

from __future__ import annotations

import tvm

CONFIG = {"tirx.disable_storage_rewrite": True}


def generate(module: tvm.IRModule, target: tvm.target.Target) -> tvm.runtime.Module:
    """The host's module that launches the kernels; it imports the CUDA module."""
    with target, tvm.transform.PassContext(opt_level=3, config=CONFIG):
        return tvm.tirx.build(module, target=target)
