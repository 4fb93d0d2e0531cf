"""Thin helpers over TVM's TIR IRBuilder.

Kernels here are Python functions that emit TIR statements while they run. TVMScript would read
much the same, but its parser costs seconds a kernel and cannot leave out an edge case that a shape
does not need; the IRBuilder takes milliseconds and plain Python decides what is emitted.
Source: ``tvm/tirx/script/builder/ir.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

Expr = tvm.ir.Expr
BLOCK = 16  # channels in one block of the NCHW16c layout


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


def local(count: int, dtype: str):
    """A buffer of ``count`` elements on the stack, which LLVM promotes to registers.

    Keep it to one vector: TVM puts a kilobyte and more on the heap, and so does it with every
    buffer of another scope than "global" (``lower_tvm_builtin.cc``); each is then allocated anew
    for every tile, and stays in registers only where LLVM can prove that nothing else touches it.
    """
    return T.alloc_buffer((count,), dtype)


def lanes_at(start, lanes: int):
    """Index of ``lanes`` consecutive elements from ``start``."""
    return T.ramp(start, 1, lanes)


def store(buffer, indices: list, value) -> None:
    """Store ``value`` (scalar, or a vector where the last index is a ramp)."""
    T.buffer_store(buffer, value, indices)


def splat(value, dtype: str, lanes: int):
    """Vector of ``lanes`` copies of ``value``, which may be a number or an expression."""
    if isinstance(value, int | float):
        value = tvm.tirx.const(value, dtype)
    return T.broadcast(value, lanes)
