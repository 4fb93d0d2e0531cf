"""A compiled network: run it, look into it, save it, load it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median

import numpy as np
import tvm
from tvm import relax
from tvm.relax.vm_build import VMExecutable

from ..errors import InputError, ModelError
from ..lower.record import KernelRecord, KernelTable
from . import threads
from .accounting import MemoryUse
from .program import Program, StockProgram, quiet_stderr

METADATA = "relaxquant_metadata"
ALIGNMENT = 64  # bytes


@dataclass(frozen=True)
class Metadata:
    """What a library knows of itself, also after it was saved.

    ``inputs`` is a list of (name, shape with None for a symbolic batch, dtype).
    """

    inputs: list
    target: str
    executor: str
    threads: int
    kernels: KernelTable
    memory: MemoryUse

    def as_dict(self) -> dict:
        """JSON-able form."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        kernels = [record.as_dict() for record in self.kernels]
        return plain | {"kernels": kernels, "memory": self.memory.as_dict()}

    @classmethod
    def from_dict(cls, plain: dict) -> Metadata:
        """The inverse of `as_dict`."""
        kernels = KernelTable([KernelRecord(**record) for record in plain["kernels"]])
        return cls(**(plain | {"kernels": kernels, "memory": MemoryUse(**plain["memory"])}))


@dataclass(frozen=True)
class LayerTime:
    """Time of one kernel call: seconds, median over the repeats of a profile."""

    record: KernelRecord
    seconds: float


class Library:
    """A compiled network; made by `relaxquant.compile` and `load`.

    Call it with NumPy arrays or torch tensors of the input's shape; it returns a NumPy array, or a
    list of them where the network returns a tuple.
    """

    def __init__(
        self,
        executable: VMExecutable | tvm.runtime.Module,
        metadata: Metadata,
        program: Callable[[], Program | StockProgram] | None = None,
    ):
        # The program holds what machine code no longer tells: None for a library from a file.
        self._executable, self.metadata, self._program = executable, metadata, program
        self._machine = relax.VirtualMachine(executable, tvm.cpu())
        self._main = self._machine["main"]
        self._buffers: dict[tuple, list[np.ndarray]] = {}

    def rebound(self, threads: int, program: Callable[[], Program | StockProgram]) -> Library:
        """The same machine code with other threads, and the program it was made from."""
        return Library(self._executable, replace(self.metadata, threads=threads), program)

    @property
    def kernels(self) -> KernelTable:
        """What really runs: one record for each kernel call, in order."""
        return self.metadata.kernels

    @property
    def memory(self) -> MemoryUse:
        """Bytes of its weights, by dtype, and of the storage planned for its activations."""
        return self.metadata.memory

    @property
    def threads(self) -> int:
        """Threads of TVM's pool while this library runs."""
        return self.metadata.threads

    def __call__(self, *inputs):
        """Run the network.

        Parameters
        ----------
        *inputs : numpy.ndarray or torch.Tensor
            One array for each input, of its shape and dtype.

        Raises
        ------
        InputError
            If the number, a shape or a dtype is wrong.
        """
        arguments = self._arguments(inputs)
        threads.use(self.threads)
        result = self._main(*arguments)
        if isinstance(result, tvm.runtime.Tensor):
            return result.numpy()
        return [tensor.numpy() for tensor in result]

    def _arguments(self, inputs: Sequence) -> list:
        """Inputs copied into tensors of our own, whose memory is aligned for the kernels."""
        arrays = [np.asarray(value) for value in inputs]
        self._check(arrays)
        key = tuple(array.shape for array in arrays)
        if key not in self._buffers:
            self._buffers[key] = [aligned_empty(a.shape, a.dtype) for a in arrays]
        # NumPy copies: it leaves the data in the cache, where TVM's own copy goes around it.
        for buffer, array in zip(self._buffers[key], arrays, strict=True):
            np.copyto(buffer, array)
        return [tvm.runtime.from_dlpack(buffer) for buffer in self._buffers[key]]

    def _check(self, arrays: Sequence[np.ndarray]) -> None:
        expected = self.metadata.inputs
        if len(arrays) != len(expected):
            raise InputError(f"the network takes {len(expected)} inputs, got {len(arrays)}")
        for array, (name, shape, dtype) in zip(arrays, expected, strict=True):
            fits = len(array.shape) == len(shape) and all(
                want in (None, have) for have, want in zip(array.shape, shape, strict=True)
            )
            if not fits:
                wanted = tuple("batch" if size is None else size for size in shape)
                raise InputError(f"input {name!r} must have shape {wanted}, got {array.shape}")
            if str(array.dtype) != dtype:
                raise InputError(f"input {name!r} must be {dtype}, got {array.dtype}")

    def source(self, form: str = "ll") -> str:
        """Generated code of all kernels.

        Parameters
        ----------
        form : str
            ``"ll"`` for LLVM IR, ``"asm"`` for assembly.
        """
        if form not in ("ll", "asm"):
            raise InputError(f"source form must be 'll' or 'asm', got {form!r}")
        if self._program is None:
            raise InputError("a library that was loaded from a file holds machine code only")
        return self._program().source(form)

    def export(self, path: str | Path, compiler: str | None = None) -> Path:
        """Write a shared library that needs nothing but TVM's runtime.

        Parameters
        ----------
        path : str or pathlib.Path
            File to write.
        compiler : str, optional
            Linker driver; default: the one TVM finds, ``g++`` or ``$CXX``.

        Raises
        ------
        InputError
            If the folder does not exist, there is no such compiler, or the library was itself
            loaded.
        """
        path = Path(path)
        if not path.parent.is_dir():
            raise InputError(f"cannot write {path}: there is no folder {path.parent}")
        if self._program is None:
            raise InputError("this library was loaded from a file: copy that file instead")
        if compiler is not None and shutil.which(compiler) is None:
            raise InputError(f"there is no compiler {compiler!r} to link with: pass compiler=...")
        self._program().export(path, compiler)
        return path

    def profile(self, *inputs, repeats: int = 10) -> list[LayerTime]:
        """Time every kernel call.

        Parameters
        ----------
        *inputs : numpy.ndarray or torch.Tensor
            As for a call.
        repeats : int
            Runs after one warm-up; the median of each call is returned.

        Returns
        -------
        list of LayerTime
            One for each record of `kernels`, in order; memory management is left out.
        """
        arguments = self._arguments(inputs)
        threads.use(self.threads)
        machine = relax.VirtualMachine(self._executable, tvm.cpu())
        runs = [_kernel_times(machine, arguments) for _ in range(repeats + 1)][1:]
        names = [name for name, _ in runs[0]]
        seconds = [median(run[i][1] for run in runs) for i in range(len(names))]
        return _match(self.kernels, names, seconds)


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array whose memory starts where TVM's kernels expect it, at a multiple of 64 bytes."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _kernel_times(machine, arguments) -> list[tuple[str, float]]:
    """(name, seconds) of every call that is not a builtin of the virtual machine."""
    times, started = [], [0.0]

    def instrument(_function, name, before, _result, *_arguments):
        if before:
            started[0] = time.perf_counter()
        elif not name.startswith("vm.builtin"):
            times.append((str(name), time.perf_counter() - started[0]))
        return 0

    machine.set_instrument(instrument)
    machine["main"](*arguments)
    return times


def _match(kernels: KernelTable, names: list[str], seconds: list[float]) -> list[LayerTime]:
    """Kernel calls by record where the two agree one to one, else by the functions' own names."""
    if [record.name for record in kernels] == names:
        return [LayerTime(*pair) for pair in zip(kernels, seconds, strict=True)]
    return [
        LayerTime(KernelRecord(name, "", name.rstrip("0123456789"), "", "", "", ""), time_)
        for name, time_ in zip(names, seconds, strict=True)
    ]


def load(path: str | Path) -> Library:
    """Load a library written by `Library.export`; torch is not needed.

    Raises
    ------
    ModelError
        If the file is missing, is no shared library, or was not written by `export`.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"there is no file {path}; write it with lib.export(...)")
    try:
        with quiet_stderr():
            module = tvm.runtime.load_module(str(path))
        machine = relax.VirtualMachine(module, tvm.cpu())
        metadata = Metadata.from_dict(json.loads(str(machine[METADATA]())))
    except Exception as error:
        raise ModelError(
            f"{path} is not a library written by lib.export ({str(error).splitlines()[-1]})"
        ) from error
    return Library(module, metadata)
