"""A compiled network: run it, look into it, save it, load it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import tvm
from tvm import relax
from tvm.relax.vm_build import VMExecutable

from ..errors import InputError, ModelError
from ..kernels.fixed_point import FLOAT
from ..lower.record import KernelRecord, KernelTable
from . import threads
from .accounting import MemoryUse
from .buffers import aligned_empty
from .layer_times import LayerTime, StampedNetwork, match
from .program import Program, StockProgram, quiet_stderr

METADATA = "relaxquant_metadata"


@dataclass(frozen=True)
class Metadata:
    """What a library knows of itself, also after it was saved.

    ``inputs`` is a list of (name, shape with None for a symbolic batch, dtype); ``requantize`` is
    what `relaxquant.compile` was asked for.
    """

    inputs: list
    target: str
    executor: str
    threads: int
    kernels: KernelTable
    memory: MemoryUse
    requantize: str = FLOAT

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

    @property
    def is_machine_code(self) -> bool:
        """Whether it was loaded from a file, and its code can be run but not read."""
        return self._program is None

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
        return arrays_of(self._main(*arguments))

    def runner(self, *inputs) -> Callable:
        """A function without arguments that runs the network on these inputs, as a call does.

        On a GPU it does so on what it has put there: see `relaxquant.executors.cuda`.
        """
        return partial(self, *inputs)

    def stamped(self, *inputs):
        """Run the network as a call does, while it stamps the time before and after each kernel.

        This is what `profile` runs; the output is that of a call. Timed beside a call, it tells
        what the stamps cost.
        """
        arguments = self._arguments(inputs)
        threads.use(self.threads)
        return arrays_of(self._stamped(arguments))

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

        The network itself reads the processor's time-stamp counter before and after each call; see
        `relaxquant.executors.stamps`.

        Parameters
        ----------
        *inputs : numpy.ndarray or torch.Tensor
            As for a call.
        repeats : int
            Runs after one warm-up; the median of each call is returned.

        Returns
        -------
        list of LayerTime
            One for each kernel call, in order: as the records of `kernels`, but for the executor
            ``"naive"``, where TVM's pipeline decides on the calls. Memory management is left out.

        Raises
        ------
        InputError
            If an input is wrong, or ``repeats`` is below 1.
        """
        if repeats < 1:
            raise InputError(f"repeats must be at least 1, got {repeats}")
        arguments = self._arguments(inputs)
        threads.use(self.threads)
        seconds = np.median(self._stamped.seconds(arguments, repeats), axis=0)
        return match(self.kernels, self._stamped.names, seconds)

    @cached_property
    def _stamped(self) -> StampedNetwork:
        return StampedNetwork(self._machine)


def arrays_of(result) -> np.ndarray | list[np.ndarray]:
    """What the virtual machine returned, as NumPy arrays."""
    if isinstance(result, tvm.runtime.Tensor):
        return result.numpy()
    return [tensor.numpy() for tensor in result]


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
