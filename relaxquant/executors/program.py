"""From a lowered module to machine code: every kernel is compiled by itself, in parallel.

One LLVM module for a whole network is compiled on one processor. Here each PrimFunc gets its own,
built by a pool of threads: TVM's FFI releases Python's lock during a call, and passes and code
generation of different functions share nothing. The virtual machine looks kernels up by name, once
when it starts, so nothing needs to be linked before it runs, and programs share what they have in
common (`compiled_kernel`).

TVM's other mode of the virtual machine, "compiled", calls kernels by their C symbols and needs all
of them in one LLVM module. It saves 0.08 us a call (62 calls: 8.1 instead of 13.2 us), a
thousandth of a ResNet-18's time, and would cost the parallel build and the times by layer.
Source: ``tvm/relax/vm_build.py``.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import tvm
from tvm import relax
from tvm.relax.vm_build import VMExecutable
from tvm.support import cc
from tvm.tirx import PrimFunc

from .compiled_kernel import CompiledKernel, KernelSource, compiled
from .stamps import stamp_source, stamping_pipeline, with_stamps
from .threads import available


class Program:
    """A network's kernels as LLVM modules, and the bytecode that calls them.

    Parameters
    ----------
    module : tvm.IRModule
        Relax after `pipelines.machine_pipeline`, and the PrimFuncs it calls.
    target : tvm.target.Target
        An llvm target.
    """

    def __init__(self, module: tvm.IRModule, target: tvm.target.Target):
        self._module, self._target = with_stamps(module), target
        functions = {
            variable.name_hint: function
            for variable, function in module.functions.items()
            if isinstance(function, PrimFunc)
        }
        sources = [KernelSource(name, function, target) for name, function in functions.items()]
        self._linked_kernels = in_parallel(compiled, [*sources, stamp_source(target)])
        self._kernels = self._linked_kernels[: len(sources)]

    @cached_property
    def executable(self) -> VMExecutable:
        """Kernels made executable in this process, and the bytecode."""
        # A kernel's machine code is written when it is first looked up: here, in parallel.
        in_parallel(CompiledKernel.load, self._linked_kernels)
        return self._linked

    @cached_property
    def _linked(self) -> VMExecutable:
        kernels = [kernel.module for kernel in self._linked_kernels]
        return link(self._module, self._target, kernels)

    def export(self, path: Path, compiler: str | None = None) -> None:
        """Write a shared library that needs nothing but TVM's runtime; uses the C linker.

        With a ``compiler``, it links, and may be one for another architecture.
        """
        if compiler:
            # TVM learns the architecture of the bytecode's object from LLVM modules only.
            export(self._linked, path, compiler)
            return
        with tempfile.TemporaryDirectory() as folder:
            kernels = self._linked_kernels
            files = [str(Path(folder) / f"kernel{i}.o") for i in range(len(kernels))]
            in_parallel(CompiledKernel.write_object, kernels, files)
            objects = [
                tvm.runtime.load_static_library(file, [kernel.name])
                for kernel, file in zip(kernels, files, strict=True)
            ]
            export(link(self._module, self._target, objects), path)

    def source(self, form: str) -> str:
        """LLVM IR (``"ll"``) or assembly (``"asm"``) of all kernels."""
        return "\n".join(in_parallel(lambda kernel: kernel.source(form), self._kernels))


class StockProgram:
    """A network as ``relax.build`` compiles it, with the interface of `Program`."""

    def __init__(self, module: tvm.IRModule, target: tvm.target.Target):
        pipeline = stamping_pipeline(relax.get_pipeline("default"))
        self.executable = relax.build(module, target, relax_pipeline=pipeline)
        self._modules = [m for m in import_tree(self.executable.mod) if m.kind == "llvm"]
        self.executable.mod.import_module(compiled(stamp_source(target)).module)

    def export(self, path: Path, compiler: str | None = None) -> None:
        """As `Program.export`."""
        export(self.executable, path, compiler)

    def source(self, form: str) -> str:
        """As `Program.source`."""
        return "\n".join(module.inspect_source(form) for module in self._modules)


def link(
    module: tvm.IRModule, target: tvm.target.Target, kernels: Sequence[tvm.runtime.Module]
) -> VMExecutable:
    """The bytecode of a module that went through `pipelines.machine_pipeline`, and its kernels."""
    builder = relax.ExecBuilder()
    tvm.get_global_func("relax.VMCodeGen")(builder, module)
    executable = tvm.get_global_func("relax.VMLink")(builder, target, None, [], {})
    # In place of an empty C module; kernels are imported nowhere else, which changes them.
    executable.clear_imports()
    for kernel in kernels:
        executable.import_module(kernel)
    return VMExecutable(executable)


def export(executable: VMExecutable, path: Path, compiler: str | None = None) -> None:
    """Write an executable as a shared library, without TVM 0.27's empty warning a constant."""
    link = cc.cross_compiler(compiler) if compiler else None
    with quiet_stderr():
        executable.export_library(str(path), fcompile=link)


def in_parallel(work: Callable, *columns: Sequence) -> list:
    """``list(map(work, *columns))`` on as many threads as this process has processors."""
    with ThreadPoolExecutor(available()) as pool:
        return list(pool.map(work, *columns))


def import_tree(module: tvm.runtime.Module) -> Iterator[tvm.runtime.Module]:
    """A module and all that it imports."""
    yield module
    for imported in module.imports:
        yield from import_tree(imported)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop what native code writes to stderr."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
