"""Thin helpers over TVM's TIR IRBuilder.

Kernels here are Python functions that emit TIR statements while they run. TVMScript would read
much the same, but its parser costs seconds a kernel and cannot leave out an edge case that a shape
does not need; the IRBuilder takes milliseconds and plain Python decides what is emitted.
Source: ``tvm/tirx/script/builder/ir.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

if TYPE_CHECKING:
    from .spec import TensorSpec

Expr = tvm.ir.Expr
BLOCK = 16  # channels in one block of the NCHW16c layout
CPU, CUDA = "cpu", "cuda"  # machines that kernels are emitted for
# What kernels ask of LLVM by name, in the words of CUDA's device library.
CUDA_FUNCTIONS = {"llvm.fma": "__fmaf_rn", "llvm.round": "roundf", "llvm.floor": "floorf"}
_machine: ContextVar[str] = ContextVar("machine", default=CPU)


@contextmanager
def emitting_for(machine: str) -> Iterator[None]:
    """Emit for ``"cuda"``, whose registers and functions have other names than those of a CPU."""
    token = _machine.set(machine)
    try:
        yield
    finally:
        _machine.reset(token)


def is_for_gpu() -> bool:
    """Whether what is emitted now is for a GPU."""
    return _machine.get() == CUDA


def ceildiv(a: int, b: int) -> int:
    """Smallest integer not below ``a / b``."""
    return -(-a // b)


def prim_func(body: Callable[[], None]) -> tvm.tirx.PrimFunc:
    """Build the PrimFunc whose arguments and statements ``body`` emits."""
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        # Outputs never alias inputs: without this LLVM reloads every weight after each store.
        T.func_attr({"tirx.noalias": True})
        body()
    return builder.get()


def batch_extent(batch: int | None):
    """Extent of the batch axis: the integer, or a fresh TIR variable where it is symbolic."""
    return T.int32() if batch is None else batch


def arg(name: str, shape: tuple, dtype: str):
    """Declare the next buffer argument of the function being built."""
    return T.arg(name, T.Buffer(shape, dtype))


def tensor_arg(name: str, tensor: TensorSpec, batch):
    """Declare an activation as the next argument; the batch is an extent of `batch_extent`."""
    return arg(name, tensor.physical_shape(batch), tensor.dtype)


def local(count: int, dtype: str):
    """A buffer of ``count`` elements on the stack, which LLVM promotes to registers.

    Keep it to one vector: TVM puts a kilobyte and more on the heap, and so does it with every
    buffer of another scope than "global" (``lower_tvm_builtin.cc``); each is then allocated anew
    for every tile, and stays in registers only where LLVM can prove that nothing else touches it.
    """
    # On a GPU "global" is the memory that all threads share.
    return T.alloc_buffer((count,), dtype, scope="local" if is_for_gpu() else "global")


def update(buffer, combine: Callable, value, lanes: int) -> None:
    """Combine a vector with the registers of ``buffer``, lane by lane: ``combine(old, value)``."""
    whole = lanes_at(0, lanes)
    if not is_for_gpu():
        store(buffer, [whole], combine(buffer[whole], value))
        return
    # One by one, as `cuda.generate` says; the value by a detour, as a vector has no elements here.
    staged = local(lanes, buffer.dtype)
    store(staged, [whole], value)
    for lane in range(lanes):
        store(buffer, [lane], combine(buffer[lane], staged[lane]))


def float_function(name: str, dtype: str, *arguments):
    """What LLVM calls ``name``, one of `CUDA_FUNCTIONS`, for scalars and vectors of float32."""
    if is_for_gpu():
        return T.call_pure_extern(dtype, CUDA_FUNCTIONS[name], *arguments)
    return T.call_llvm_pure_intrin(dtype, name, *arguments)


def lanes_at(start, lanes: int):
    """Index of ``lanes`` consecutive elements from ``start``."""
    return T.ramp(start, 1, lanes)


def store(buffer, indices: list, value) -> None:
    """Store ``value`` (scalar, or a vector where the last index is a ramp)."""
    T.buffer_store(buffer, value, indices)


def unfused_add(a, b, dtype: str):
    """``a + b`` of float32, rounded by itself where NVIDIA's compiler would fuse a product too."""
    return T.call_pure_extern(dtype, "__fadd_rn", a, b) if is_for_gpu() else a + b


def rounded_product(integer, factor, lanes: int = 1):
    """float32 of an integer below 2**24 times a float32 factor, rounded by itself."""
    wide, narrow = (f"{kind}x{lanes}" if lanes > 1 else kind for kind in ("float64", "float32"))
    if is_for_gpu():
        return T.call_pure_extern(narrow, "__fmul_rn", T.cast(integer, narrow), factor)
    # In float64 the product is exact: a float32 one LLVM would fuse with the sum.
    return T.cast(T.cast(integer, wide) * T.cast(factor, wide), narrow)


def splat(value, dtype: str, lanes: int):
    """Vector of ``lanes`` copies of ``value``, which may be a number or an expression."""
    if isinstance(value, int | float):
        value = tvm.tirx.const(value, dtype)
    return T.broadcast(value, lanes)
