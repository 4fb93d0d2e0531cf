"""``rq.compile``: one function from a Relax module to a `Library`."""

from __future__ import annotations

import json

import tvm
from tvm import relax

from .. import target as targets
from ..errors import InputError, did_you_mean
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

    Raises
    ------
    InputError
        For an unknown executor or schedule, more threads than TVM's pool may have, or a symbolic
        batch that the executor cannot take.
    ModelError, TargetError
        If the module or the target is not supported.
    """
    _check_executor(executor)
    main_of(module)
    threads = pool.check(threads or min(targets.physical_cores(), pool.available()))
    resolved = targets.resolve(target)
    module = _bind_batch(module, executor, batch)
    if executor == "naive":
        return _compile_naive(module, resolved, threads)
    lowered = lower(module, resolved, schedule)
    with tvm.transform.PassContext(opt_level=3), resolved:
        planned = planning_pipeline(plan_memory=executor == "graph")(lowered.module)
        kernels = KernelTable(lowered.kernels)
        metadata = _metadata(module, resolved, executor, threads, kernels, account(planned))
        ready = machine_pipeline()(_with_metadata(planned, metadata))
    program = Program(ready, resolved)
    return Library(program.executable, metadata, lambda: program)


def _compile_naive(module, target, threads: int) -> Library:
    kernels = KernelTable(stock_records(module))
    metadata = _metadata(module, target, "naive", threads, kernels, account(module))
    program = StockProgram(_with_metadata(module, metadata), target)
    return Library(program.executable, metadata, lambda: program)


def _check_executor(executor: str) -> None:
    if executor not in EXECUTORS:
        hint = did_you_mean(executor, EXECUTORS)
        raise InputError(f"no executor is called {executor!r}{hint} (there are: {EXECUTORS})")


def _bind_batch(module: tvm.IRModule, executor: str, batch: int | None) -> tvm.IRModule:
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
        target=str(target.attrs.get("mcpu", "")) or str(target),
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
