"""Where kernels are run and timed while tuning: this machine's CPU or GPU; see also `board`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import tvm

from .. import target as targets
from ..errors import TargetError
from ..executors import nvidia
from ..executors import threads as pool
from ..executors.cuda import exact_compiler
from ..kernels.cuda.generate import generate
from ..kernels.intrinsics import InstructionSet
from ..measure.machine import short_name


class _Local:
    """What runs kernels in this process.

    Attributes
    ----------
    name : str
        For messages and records.
    is_here : bool
        Whether kernels run in this process: then its own thread has to call them.
    machine : str
        The processor.
    tvm : tvm.runtime.Device
        Where tensors lie.
    """

    name: str
    is_here = True
    machine: str
    tvm: tvm.runtime.Device

    def load(self, function: tvm.tirx.PrimFunc, target: tvm.target.Target):
        """A kernel as a module to call, whose function is ``main``."""
        executable = built(function, target)
        return executable.mod if hasattr(executable, "mod") else executable

    def is_alive(self) -> bool:
        """Whether anything can still be run there."""
        return True

    def close(self) -> None:
        """Nothing to give back."""


class LocalDevice(_Local):
    """This machine's CPU.

    Parameters
    ----------
    threads : int
        Of TVM's pool.
    """

    name = "this machine"

    def __init__(self, threads: int):
        pool.use(threads)
        self.threads, self.machine, self.tvm = threads, short_name(), tvm.cpu()

    def timing(self) -> contextlib.AbstractContextManager:
        """While kernels are timed there."""
        return pool.bound(self.threads)

    def timed(self, module, arguments: list) -> Callable[[], object]:
        """A function that runs the kernel once; whoever calls it looks at the clock."""
        kernel = module["main"]
        return lambda: kernel(*arguments)


class LocalGpu(_Local):
    """This machine's GPU.

    Parameters
    ----------
    target : tvm.target.Target
        A CUDA target.

    Raises
    ------
    TargetError
        If there is no CUDA device, it is of another compute capability, or there is no compiler.
    """

    name = "this machine's GPU"

    def __init__(self, target: tvm.target.Target):
        self.tvm = tvm.cuda(0)
        asked = str(target.attrs["arch"])
        if not self.tvm.exist:
            raise TargetError(
                f"there is no CUDA device here to tune for {asked} on: tune where there is one, or "
                "give runner='rpc' and the tracker of servers that have one"
            )
        found = targets.arch_of(self.tvm)
        if asked != found:
            raise TargetError(
                f"what is compiled for {asked} cannot be timed on this GPU, which is {found}: tune "
                "for target 'cuda'"
            )
        nvidia.check_compiler()
        self.machine = str(self.tvm.device_name)

    def timing(self) -> contextlib.AbstractContextManager:
        """While kernels are timed there: no thread of a CPU matters."""
        return contextlib.nullcontext()

    def timed(self, module, arguments: list) -> DeviceTimed:
        """The kernel, timed by CUDA's events."""
        return DeviceTimed(module, self.tvm, arguments)


def built(function: tvm.tirx.PrimFunc, target: tvm.target.Target) -> tvm.runtime.Executable:
    """A kernel compiled for a target; its function is ``main``."""
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    if not targets.is_cuda(target):
        return tvm.tirx.build(module, target=target)
    with exact_compiler():
        return generate(module, target)


@dataclass(frozen=True)
class DeviceTimed:
    """A kernel whose device keeps the time: a call runs it and returns its seconds.

    Attributes
    ----------
    module
        Loaded there; its function is ``main``.
    device : tvm.runtime.Device
        Where it runs.
    arguments : list
        Tensors there, the output last.
    """

    module: tvm.runtime.Module
    device: tvm.runtime.Device
    arguments: list

    def __call__(self) -> float:
        return self._mean_s(1)

    def elapsed_ns(self, calls: int) -> int:
        """Nanoseconds of many calls, as `relaxquant.measure.interleaved` asks for them."""
        return int(1e9 * calls * self._mean_s(calls))

    def _mean_s(self, number: int) -> float:
        evaluator = self.module.time_evaluator("main", self.device, number=number, repeat=1)
        return float(evaluator(*self.arguments).mean)


def device_here(
    target: tvm.target.Target, isa: InstructionSet, threads: int
) -> LocalDevice | LocalGpu:
    """This machine's device for a target; TargetError where it has none."""
    if targets.is_cuda(target):
        return LocalGpu(target)
    missing = isa.features - targets.features(targets.resolve("native"))
    if missing:
        raise TargetError(f"{isa.name} cannot be timed here: this CPU has no {sorted(missing)}")
    return LocalDevice(threads)
