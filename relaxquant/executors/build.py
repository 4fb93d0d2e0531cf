"""``rq.compile``: one function from a Relax module to a `Library`."""

from __future__ import annotations

import json
from pathlib import Path

import tvm
from tvm import relax

from .. import target as targets
from ..errors import InputError, did_you_mean
from ..kernels.intrinsics import instruction_set
from ..kernels.registry import AUTO
from ..kernels.tuned import Tuned
from ..kernels.tuned import load as load_tuned
from ..lower import KernelTable, lower
from ..lower.read import dtype_of, main_of, shape_of
from . import threads as pool
from .accounting import MemoryUse, account
from .library import METADATA, Library, Metadata
from .naive import stock_records
from .pipelines import EXECUTORS, machine_pipeline, planning_pipeline
from .program import Program, StockProgram


def compile(
    module: tvm.IRModule,
    target: str | dict | tvm.target.Target = "native",
    schedule: str = "auto",
    executor: str = "graph",
    threads: int | None = None,
    batch: int | None = None,
    tuned: Tuned | str | Path | None = None,
) -> Library:
    """Compile fp32 or QDQ Relax into a library that runs.

    Parameters
    ----------
    module : tvm.IRModule
        From `relaxquant.frontends` or `relaxquant.quantize`.
    target : str, dict or tvm.target.Target
        ``"native"``, an LLVM CPU name, or a TVM target; see `relaxquant.target.resolve`.
    schedule : str
        Row of the schedule table for all layers it takes; ``"auto"``, and layers it does not
        take, choose by the rules in ``kernels/choose.py``.
    executor : str
        ``"graph"``: static shapes, the memory of all activations planned at compile time.
        ``"vm"``: the same kernels, memory allocated call by call; the batch may be symbolic.
        ``"naive"``: the module as it is through TVM's default pipeline, as TVM users get it today.
    threads : int, optional
        Threads of TVM's pool while this library runs; default: the physical cores.
    batch : int, optional
        Bind a symbolic batch to this size.
    tuned : Tuned, str or pathlib.Path, optional
        What `relaxquant.tune` returned, or its file: ``schedule="auto"`` asks it first.

    Raises
    ------
    InputError
        For an unknown executor or schedule, more threads than TVM's pool may have, a symbolic
        batch that the executor cannot take, or ``tuned`` of another target or thread count.
    ModelError, TargetError
        If the module or the target is not supported.
    """
    _check_executor(executor)
    main_of(module)
    threads = pool.check(threads or min(targets.physical_cores(), pool.available()))
    resolved = targets.resolve(target)
    module = bind_batch(module, executor, batch)
    if executor == "naive":
        return _compile_naive(module, resolved, threads)
    tuned = _for_this(tuned, schedule, resolved, threads)
    lowered = lower(module, resolved, schedule, tuned)
    with tvm.transform.PassContext(opt_level=3), resolved:
        planned = planning_pipeline(plan_memory=executor == "graph")(lowered.module)
        kernels = KernelTable(lowered.kernels)
        metadata = _metadata(module, resolved, executor, threads, kernels, account(planned))
        ready = machine_pipeline()(_with_metadata(planned, metadata))
    program = Program(ready, resolved)
    return Library(program.executable, metadata, lambda: program)


def _for_this(tuned, schedule: str, target: tvm.target.Target, threads: int) -> Tuned | None:
    """The tuning result to use, None without one; InputError if it is one of something else."""
    if tuned is not None and schedule != AUTO:
        raise InputError(f"tuned= chooses schedules and {schedule!r} was asked for: leave one out")
    tuned = load_tuned(tuned)
    if tuned is not None:
        tuned.check(targets.name(target), instruction_set(target), threads)
    return tuned


def _compile_naive(module, target, threads: int) -> Library:
    kernels = KernelTable(stock_records(module))
    metadata = _metadata(module, target, "naive", threads, kernels, account(module))
    program = StockProgram(_with_metadata(module, metadata), target)
    return Library(program.executable, metadata, lambda: program)


def _check_executor(executor: str) -> None:
    if executor not in EXECUTORS:
        hint = did_you_mean(executor, EXECUTORS)
        raise InputError(f"no executor is called {executor!r}{hint} (there are: {EXECUTORS})")


def bind_batch(module: tvm.IRModule, executor: str, batch: int | None) -> tvm.IRModule:
    """The module with its symbolic batch bound; InputError where the executor needs that."""
    symbolic = relax.analysis.defined_symbolic_vars(module["main"])
    if batch is not None and symbolic:
        return relax.transform.BindSymbolicVars({symbolic[0].name: batch})(module)
    static = shape_of(module["main"].params[0])[0]
    if batch is not None and batch != static:
        raise InputError(
            f"the module has a static batch of {static}, not {batch}; import it with "
            "dynamic_batch=True or with an example of that batch"
        )
    if symbolic and executor == "graph":
        raise InputError(
            "executor 'graph' needs static shapes and the module's batch is symbolic: pass "
            "batch=..., or use executor 'vm'"
        )
    return module


def _metadata(module, target, executor: str, threads: int, kernels, memory: MemoryUse) -> Metadata:
    inputs = [(str(p.name), list(shape_of(p)), dtype_of(p)) for p in module["main"].params]
    return Metadata(
        inputs=inputs,
        target=targets.name(target),
        executor=executor,
        threads=threads,
        kernels=kernels,
        memory=memory,
    )


def _with_metadata(module: tvm.IRModule, metadata: Metadata) -> tvm.IRModule:
    """Add a Relax function that returns the metadata, so that one exported file holds all."""
    builder = relax.BlockBuilder(module)
    with builder.function(METADATA, []):
        builder.emit_func_output(tvm.ir.StringImm(json.dumps(metadata.as_dict())))
    return builder.get()
