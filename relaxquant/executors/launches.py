"""How many threads a PrimFunc's kernels are launched with, read from its loops on threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir.prim import IntImm
from tvm.s_tir.stmt import SBlockRealize

_KERNEL = "_kernel"  # between a function's name and the number of its launch


@dataclass(frozen=True)
class Launch:
    """Blocks of a launch, None where the batch decides on them, and threads of a block."""

    blocks: int | None
    threads: int


def launches_of(functions: Mapping[str, tirx.PrimFunc]) -> dict[str, Launch]:
    """Name of every kernel, as TVM calls it in the CUDA text -> how it is launched.

    Parameters
    ----------
    functions : mapping
        Scheduled PrimFuncs by name; those without a loop on threads launch nothing.
    """
    found = {}
    for name, function in functions.items():
        for index, statement in enumerate(_launching(function.body)):
            found[kernel_of(name, index)] = _launch(statement)
    return found


def kernel_of(function: str, launch: int = 0) -> str:
    """Name in the CUDA text of what a function launches first, or after that."""
    return f"{function}{_KERNEL}" + (f"_{launch}" if launch else "")


def function_of(kernel: str) -> str:
    """Name of the function that launches a kernel of the CUDA text."""
    return kernel.rpartition(_KERNEL)[0]


def prim_funcs(module: tvm.IRModule) -> dict[str, tirx.PrimFunc]:
    """A module's PrimFuncs by name."""
    functions = module.functions.items()
    return {key.name_hint: part for key, part in functions if isinstance(part, tirx.PrimFunc)}


def _launching(statement) -> Iterator[tirx.For]:
    """The outermost loops on threads, in order: one kernel each."""
    if isinstance(statement, tirx.SeqStmt):
        for part in statement.seq:
            yield from _launching(part)
    elif isinstance(statement, tirx.For) and statement.kind == tirx.ForKind.THREAD_BINDING:
        yield statement
    elif isinstance(statement, SBlockRealize):
        yield from _launching(statement.block.body)
    elif getattr(statement, "body", None) is not None:
        yield from _launching(statement.body)


def _launch(statement: tirx.For) -> Launch:
    extents = {}

    def visit(loop: tirx.For) -> None:
        if loop.kind == tirx.ForKind.THREAD_BINDING:
            known = int(loop.extent) if isinstance(loop.extent, IntImm) else None
            extents[str(loop.thread_binding.thread_tag)] = known

    tvm_ffi.structural_walk(statement, [(tirx.For, visit)], order="pre")
    blocks = [extent for tag, extent in extents.items() if tag.startswith("blockIdx")]
    threads = [extent for tag, extent in extents.items() if tag.startswith("threadIdx")]
    return Launch(None if None in blocks else prod(blocks), prod(threads))
