"""Parallel loops on the threads of a GPU, for kernels that are written once for all machines.

Every outermost ``parallel`` loop becomes a launch: its iterations, and those of the loops that are
perfectly nested in it, are dealt out to blocks of threads, the innermost to neighbouring ones. By
the kernels' convention these are independent: what a kernel reduces, it reduces in registers that
it declares inside of them.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir.prim import IntImm

from ..tir import CUDA, emitting_for

THREADS = 128  # in a block: four warps, so that few registers leave room for many blocks
SCHEDULED = "tirx.is_scheduled"  # what TVM's own GPU schedules leave alone


def emit(build: Callable[[], tirx.PrimFunc]) -> tirx.PrimFunc:
    """The PrimFunc that ``build`` makes, for CUDA, with every loop that may be on threads."""
    with emitting_for(CUDA):
        function = build()
    body = _bound(function.body)
    function = tirx.PrimFunc(function.params, body, function.ret_type, function.attrs)
    return function.with_attr(SCHEDULED, True)


def for_machine(build: Callable[[], tirx.PrimFunc], machine: str) -> tirx.PrimFunc:
    """The PrimFunc that ``build`` makes: for a CPU as it is, for ``"cuda"`` by `emit`."""
    return emit(build) if machine == CUDA else build()


def _bound(statement: tirx.Stmt) -> tirx.Stmt:
    if isinstance(statement, tirx.SeqStmt):
        return tirx.SeqStmt([_bound(part) for part in statement.seq])
    if isinstance(statement, tirx.For) and statement.kind == tirx.ForKind.PARALLEL:
        return _on_threads(*_nest(statement))
    return statement  # emitted for threads already


def _nest(loop: tirx.For) -> tuple[list[tirx.For], tirx.Stmt]:
    """The loop and those perfectly nested in it, and what they repeat."""
    loops, body = [loop], loop.body
    while isinstance(body, tirx.For) and isinstance(body.extent, IntImm):
        loops.append(body)
        body = body.body
    return loops, body


def _on_threads(loops: list[tirx.For], body: tirx.Stmt) -> tirx.Stmt:
    """One launch: a thread for each iteration of all ``loops`` together."""
    total = loops[0].extent
    for loop in loops[1:]:
        total = total * loop.extent
    block, thread = tirx.Var("block", "int32"), tirx.Var("thread", "int32")
    statements, rest = [], block * THREADS + thread
    for loop in reversed(loops[1:]):
        statements.append(tirx.Bind(loop.loop_var, tirx.floormod(rest, loop.extent)))
        rest = tirx.floordiv(rest, loop.extent)
    statements += [tirx.Bind(loops[0].loop_var, rest), body]
    body = tirx.SeqStmt(statements)
    if not (isinstance(total, IntImm) and total.value % THREADS == 0):
        body = tirx.IfThenElse(block * THREADS + thread < total, body, None)
    blocks = tirx.floordiv(total + (THREADS - 1), THREADS)
    on_threads = _thread_loop(thread, "threadIdx.x", THREADS, body)
    return _thread_loop(block, "blockIdx.x", blocks, on_threads)


def _thread_loop(variable: tirx.Var, tag: str, extent, body: tirx.Stmt) -> tirx.For:
    thread = tirx.IterVar(None, tirx.Var(tag, "int32"), tirx.IterVar.ThreadIndex, tag)
    return tirx.For(variable, 0, extent, tirx.ForKind.THREAD_BINDING, body, thread)
