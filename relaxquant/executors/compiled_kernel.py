"""Kernels as machine code, kept for the life of the process: none is compiled twice.

Variants of a network, of other weights, scales or bit widths, share most of their kernels, since
all of these are arguments of them. The whole PrimFunc says which kernel it is, not its name.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property

import tvm
import tvm_ffi
from tvm.tirx import PrimFunc

from ..recent import Recent


@dataclass(frozen=True, eq=False)
class KernelSource:
    """What a kernel is compiled from; equal ones give equal machine code.

    Attributes
    ----------
    name : str
        Symbol of the function, by which the virtual machine looks it up.
    function : PrimFunc
        Compared by structure.
    target : tvm.target.Target
        Compared by its text.
    """

    name: str
    function: PrimFunc
    target: tvm.target.Target

    @cached_property
    def _key(self) -> tuple:
        return self.name, str(self.target), tvm_ffi.structural_hash(self.function)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other) -> bool:
        # The hash is 64 bits of the function; structural equality leaves nothing out.
        return self._key == other._key and tvm_ffi.structural_equal(self.function, other.function)

    def compile(self) -> tvm.runtime.Module:
        """Make its LLVM module; in a thread the pass context starts as the default."""
        with tvm.transform.PassContext(opt_level=3):
            return tvm.tirx.build(tvm.IRModule({self.name: self.function}), target=self.target)


class CompiledKernel:
    """The LLVM module of one PrimFunc; several programs may hold it, on several threads.

    Parameters
    ----------
    name : str
        Its symbol.
    module : tvm.runtime.Module
        An LLVM module. It must not be changed: importing another one into it would.
    """

    def __init__(self, name: str, module: tvm.runtime.Module):
        self.name, self.module = name, module
        self._lock = threading.Lock()  # LLVM's context is for one thread at a time

    def load(self) -> None:
        """Write the machine code into this process; the first look-up would."""
        with self._lock:
            self.module.get_function(self.name)

    def source(self, form: str) -> str:
        """LLVM IR (``"ll"``) or assembly (``"asm"``)."""
        with self._lock:
            return self.module.inspect_source(form)

    def write_object(self, path: str) -> None:
        """Write an object file."""
        with self._lock:
            self.module.write_to_file(path)


def compiled(source: KernelSource) -> CompiledKernel:
    """The kernel of a source: compiled now, or the one that an equal source got before."""
    return KERNELS.get(source, lambda: CompiledKernel(source.name, source.compile()))


KERNELS = Recent(1024)  # a ResNet-50 has about 30
