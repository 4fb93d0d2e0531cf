"""A GPU for tests of tuning: kernels are compiled to CUDA text and run by the emulator."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from types import SimpleNamespace

import tvm

from tests.kernels.cuda_emulator import emulate


class EmulatedGpu:
    """In the place of `relaxquant.tune.device.LocalGpu`; its times are the emulator's."""

    name, machine, is_here = "emulated GPU", "an emulator", True

    def __init__(self, _target: tvm.target.Target):
        self.tvm = tvm.cpu()
        self.loaded = 0

    def timing(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    def load(self, function: tvm.tirx.PrimFunc, target: tvm.target.Target) -> EmulatedKernel:
        self.loaded += 1
        return EmulatedKernel(emulate({"main": function}, target)["main"])

    def timed(self, kernel: EmulatedKernel, arguments: list) -> Callable[[], object]:
        return lambda: kernel["main"](*arguments)

    def is_alive(self) -> bool:
        return True

    def close(self) -> None:
        pass


class EmulatedKernel:
    """What a search asks of TVM's module with one kernel."""

    def __init__(self, function: Callable):
        self.function = function

    def __getitem__(self, _name: str) -> Callable:
        return self._call

    def time_evaluator(self, _name: str, _device, number: int, repeat: int) -> Callable:
        def evaluate(*tensors):
            start = time.perf_counter()
            self._call(*tensors)
            seconds = time.perf_counter() - start
            return SimpleNamespace(mean=seconds, results=[seconds])

        return evaluate

    def _call(self, *tensors) -> None:
        arrays = [tensor.numpy() for tensor in tensors]
        self.function(*arrays)
        tensors[-1].copyfrom(arrays[-1])
