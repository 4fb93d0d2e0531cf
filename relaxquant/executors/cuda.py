"""A network compiled for an NVIDIA GPU: run it where there is one, read its code anywhere.

TVM's wheel writes CUDA text without a GPU or a toolkit, and asks for machine code only where it
runs, of the compiler that TVM finds there: ``nvcc``, else NVRTC of the package ``cuda-bindings``.
To be read, it is made here: see `nvidia`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import tvm
from tvm import relax

from .. import target as targets
from ..errors import InputError, TargetError
from ..kernels.cuda.generate import generate
from ..lower.record import KernelTable
from . import nvidia, nvrtc
from .launches import Launch, launches_of, prim_funcs
from .library import Library, Metadata, arrays_of
from .program import import_tree, link
from .resources import Resources, occupancy, resources_of
from .stamps import kernels_called

FORMS = ("cuda", "ptx", "sass")
# What TVM's calls of the two compilers read: fast mathematics would round otherwise than kernels
# say, and is taken back for NVRTC, where it is always on. Registers: see `nvrtc`.
REGISTERS = {"TVM_CUDA_PTXAS_REG_LEVEL": "5"}  # the assembler's default
NVCC = {"TVM_CUDA_COMPILE_MODE": "nvcc", "TVM_CUDA_NVCC_NO_FAST_MATH": "1", **REGISTERS}
NVRTC = {"TVM_CUDA_NVRTC_EXTRA_OPTS": "--ftz=false --prec-div=true --prec-sqrt=true", **REGISTERS}


class CudaProgram:
    """A network's kernels as one CUDA module, and the bytecode that calls them.

    Parameters
    ----------
    module : tvm.IRModule
        Relax after `pipelines.machine_pipeline`, and the PrimFuncs it calls, on threads.
    target : tvm.target.Target
        A CUDA target.
    """

    def __init__(self, module: tvm.IRModule, target: tvm.target.Target):
        kernels = prim_funcs(module)
        with exact_compiler():
            built = generate(tvm.IRModule(kernels), target)
        self.launches = launches_of(kernels)
        self.executable = link(module, target, [built])
        self.text = "\n".join(part.inspect_source("cuda") for part in built.imports)


class CudaStockProgram:
    """A network as ``relax.build`` compiles it for CUDA, with the interface of `CudaProgram`."""

    def __init__(self, module: tvm.IRModule, target: tvm.target.Target):
        scheduled = _Kept()
        pipeline = [relax.get_default_pipeline(target), scheduled.keep]
        with exact_compiler(), target:
            self.executable = relax.build(
                module, target, relax_pipeline=tvm.transform.Sequential(pipeline)
            )
        self.launches = launches_of(prim_funcs(scheduled.module))
        self.calls = kernels_called(scheduled.module)
        modules = [part for part in import_tree(self.executable.mod) if part.kind == "cuda"]
        self.text = "\n".join(part.inspect_source("cuda") for part in modules)

    def named(self, records: KernelTable) -> KernelTable:
        """The records that multiply by the names of the fused kernels that do it for them."""
        calls, named = list(self.calls), []
        for record in records:
            # "fused_conv2d1_add1_relu1" does what "conv2d1" is; of several, the next one called.
            own = re.compile(rf"(?:^|_){record.name}(?:_|$)")
            found = next((name for name in calls if record.macs and own.search(name)), "")
            if found:
                calls.remove(found)
            named.append(replace(record, name=found or record.name))
        return KernelTable(named)


class _Kept:
    """A pass that changes nothing, and keeps the module it saw."""

    def __init__(self):
        self.module = None

        @tvm.transform.module_pass(opt_level=0, name="Keep")
        def keep(module: tvm.IRModule, _context) -> tvm.IRModule:
            self.module = module
            return module

        self.keep = keep


class CudaLibrary(Library):
    """What `relaxquant.compile` gives for a CUDA target.

    ``kernels``, ``memory`` and ``source`` are as of any `Library`. It runs where there is a GPU;
    it is not profiled layer by layer, and not exported.
    """

    def __init__(
        self,
        program: CudaProgram | CudaStockProgram,
        metadata: Metadata,
        target: tvm.target.Target,
    ):
        # No virtual machine yet: it would copy the weights to a GPU, and there may be none.
        self.metadata, self._target = metadata, target
        self._program = lambda: program

    def __call__(self, *inputs):
        """Run the network on the GPU, copies there and back included.

        Raises
        ------
        InputError
            If the number, a shape or a dtype of the inputs is wrong.
        TargetError
            If there is no CUDA device.
        """
        arrays = [np.asarray(value) for value in inputs]
        self._check(arrays)
        main, device = self._on_gpu
        return arrays_of(main(*(tvm.runtime.tensor(array, device=device) for array in arrays)))

    def runner(self, *inputs) -> Callable:
        """A function without arguments that runs the network on inputs it has put on the GPU.

        What it takes is the time of the network alone: it returns when the GPU is done, and its
        output stays there, for `arrays_of` to copy. Raises as a call does.
        """
        arrays = [np.asarray(value) for value in inputs]
        self._check(arrays)
        main, device = self._on_gpu
        tensors = [tvm.runtime.tensor(array, device=device) for array in arrays]

        def run():
            result = main(*tensors)
            device.sync()
            return result

        return run

    @property
    def launches(self) -> dict[str, Launch]:
        """Kernel in the CUDA text -> blocks and threads that it is launched with."""
        return self._program().launches

    @property
    def calls(self) -> Counter:
        """Function -> how often one inference calls it."""
        program = self._program()
        if isinstance(program, CudaStockProgram):
            return Counter(program.calls)
        return Counter(record.name for record in self.kernels)

    def stamped(self, *inputs):
        """Raise TargetError: a GPU's kernels are not timed by a CPU's counter."""
        raise self._not_for_gpus(
            "profiled layer by layer", "time whole calls, or use NVIDIA's nsys"
        )

    def profile(self, *inputs, repeats: int = 10):
        """Raise TargetError: a GPU's kernels are not timed by a CPU's counter."""
        raise self._not_for_gpus(
            "profiled layer by layer", "time whole calls, or use NVIDIA's nsys"
        )

    def export(self, path: str | Path, compiler: str | None = None) -> Path:
        """Raise TargetError: there is no machine code before there is a GPU."""
        raise self._not_for_gpus("exported", "compile it on the machine that is to run it")

    def source(self, form: str = "cuda") -> str:
        """Generated code of all kernels.

        Parameters
        ----------
        form : str
            ``"cuda"`` for CUDA C++, ``"ptx"`` for what NVRTC makes of it, nvcc where that is not
            installed, and ``"sass"`` for NVIDIA's machine code, by NVRTC and nvdisasm. A GPU is
            needed for none of them; ``env/requirements-cuda.txt`` has the packages.

        Raises
        ------
        InputError
            If there is no such form.
        TargetError
            If what makes the form is not installed, does not know the compute capability, or
            rejects the text.
        """
        if form not in FORMS:
            raise InputError(f"source form of a CUDA network must be one of {FORMS}, got {form!r}")
        text = self._program().text
        if form == "cuda":
            return text
        return (nvidia.ptx if form == "ptx" else nvidia.sass)(text, self._arch)

    @property
    def resources(self) -> dict[str, Resources]:
        """Kernel in the CUDA text -> registers, local and shared memory, as NVRTC compiles it.

        Raises
        ------
        TargetError
            As ``source("ptx")`` does; nvcc is not asked.
        """
        return resources_of(nvrtc.compiled(self._program().text, self._arch).log)

    @property
    def occupancy(self) -> dict[str, float | None]:
        """Kernel -> threads at once over those that a multiprocessor could run, by arithmetic.

        None where the compute capability's limits are not known to `resources.occupancy`. Raises
        as `resources` does.
        """
        threads = {name: launch.threads for name, launch in self.launches.items()}
        taken = self.resources
        return {name: occupancy(taken[name], threads[name], self._arch) for name in taken}

    @property
    def _arch(self) -> str:
        return str(self._target.attrs["arch"])

    @cached_property
    def _on_gpu(self) -> tuple:
        device = tvm.cuda(0)
        if not device.exist:
            raise TargetError(
                "there is no CUDA device here: a network compiled for "
                f"{targets.name(self._target)} can only be looked into (lib.kernels, "
                "lib.source('cuda')); compile with target='native' to run it on this CPU"
            )
        self._machine = relax.VirtualMachine(self._program().executable, device)
        return self._machine["main"], device

    def _not_for_gpus(self, done: str, instead: str) -> TargetError:
        return TargetError(f"a network compiled for CUDA cannot be {done}: {instead}")


@contextlib.contextmanager
def exact_compiler() -> Iterator[None]:
    """Have TVM call nvcc, else NVRTC, with the settings above; what a user set stays."""
    wanted = NVCC if shutil.which("nvcc") else NVRTC
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
