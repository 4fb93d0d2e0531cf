"""From PrimFuncs on threads to a CUDA module, with TVM's faults worked around.

TVM 0.27's code generation for CUDA remembers by its text what it loaded as a vector, and uses it
again within the same braces, stores in between or not. So kernels read registers that change one by
one (`tir.update`), and registers are not shared by buffers that live one after the other: a buffer
is then stored before it is loaded, once. NVIDIA's compiler assigns registers by itself.

Of ``__dp4a`` with an unsigned and a signed argument its text has the declaration for both of
NVIDIA's compilers and the definition for nvcc alone: NVRTC, TVM's first choice on a GPU, then finds
no such function. Here both get the definition.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tvm
import tvm_ffi

CONFIG = {"tirx.disable_storage_rewrite": True}


AFTERWARDS = "tvm_callback_cuda_postproc"  # what TVM calls with the text, where it is registered
NVCC_ALONE = "#if !defined(__CUDACC_RTC__) && defined(__CUDA_ARCH__)"
BOTH = "#if defined(__CUDA_ARCH__)"


def generate(module: tvm.IRModule, target: tvm.target.Target) -> tvm.runtime.Module:
    """The host's module that launches the kernels; it imports the CUDA module."""
    with target, tvm.transform.PassContext(opt_level=3, config=CONFIG), _mended():
        return tvm.tirx.build(module, target=target)


@contextmanager
def _mended() -> Iterator[None]:
    """Have the text defined for NVRTC too; what a user had registered for it is called before."""
    before = tvm_ffi.get_global_func(AFTERWARDS, allow_missing=True)

    def mend(text: str, target: tvm.target.Target) -> str:
        text = str(before(text, target)) if before else str(text)
        return text.replace(NVCC_ALONE, BOTH)

    tvm_ffi.register_global_func(AFTERWARDS, mend, override=True)
    try:
        yield
    finally:
        if before:
            tvm_ffi.register_global_func(AFTERWARDS, before, override=True)
        else:
            tvm_ffi.registry.remove_global_func(AFTERWARDS)
