"""``rq.compile``: one function from a Relax module to a `Library`."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import tvm
from tvm import relax

from .. import target as targets
from ..errors import InputError, ModelError, did_you_mean
from ..kernels.fixed_point import FLOAT
from ..kernels.intrinsics import instruction_set
from ..kernels.registry import AUTO
from ..kernels.tuned import METASCHEDULE, Tuned
from ..kernels.tuned import load as load_tuned
from ..kernels.tvm_intrinsics import import_intrinsics
from ..lower import KernelTable, check_requantize, lower
from ..lower.read import dtype_of, main_of, shape_of
from ..parts import joined
from . import cache as compiled
from . import content
from . import threads as pool
from .accounting import MemoryUse, account
from .cached_program import CachedProgram
from .cross import CrossLibrary
from .cuda import CudaLibrary, CudaProgram, CudaStockProgram
from .library import METADATA, Library, Metadata, load
from .naive import stock_records
from .pipelines import EXECUTORS, machine_pipeline, planning_pipeline
from .program import Program, StockProgram

log = logging.getLogger("relaxquant")
AnyProgram = Program | StockProgram | CudaProgram | CudaStockProgram


def compile(
    module: tvm.IRModule,
    target: str | dict | tvm.target.Target = "native",
    schedule: str = "auto",
    executor: str = "graph",
    threads: int | None = None,
    batch: int | None = None,
    tuned: Tuned | str | Path | None = None,
    cache: bool = True,
    requantize: str = FLOAT,
) -> Library:
    """Compile fp32, fp16 or QDQ Relax into a library that runs.

    Parameters
    ----------
    module : tvm.IRModule
        From `relaxquant.frontends` or `relaxquant.quantize`.
    target : str, dict or tvm.target.Target
        ``"native"``, an LLVM CPU name, ``"cuda"`` or ``"sm_75"`` and the like, or a TVM target; see
        `relaxquant.target.resolve`. What is compiled for another architecture can be looked into
        and exported, but not run; what is compiled for a GPU can be looked into without one.
    schedule : str
        Row of the schedule table for all layers it takes; ``"auto"``, and layers it does not
        take, choose by the rules in ``kernels/choose.py``. ``"metaschedule"``, with ``tuned``: what
        MetaSchedule found, also where the rules' choice was faster.
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
        ``lib.kernels.tuned`` is the number of layers it knew.
    cache : bool
        Keep the result in the cache folder, and take it from there if the same network was
        compiled before by the same code: see `relaxquant.executors.content.digest`.
        ``$RELAXQUANT_COMPILE_CACHE=0`` is ``cache=False`` for a whole process.
    requantize : str
        How sums of 8-bit integers become 8-bit integers again. ``"float"``: one product in float32,
        rounded once. ``"tflite"``: the integer multiplier and the two roundings, in dense layers
        one, of TFLite's reference kernels, bit for bit. It takes a little longer, and
        ``lib.kernels`` says where it holds.

    Raises
    ------
    InputError
        For an unknown executor, schedule or requantization, more threads than TVM's pool may have,
        a symbolic batch that the executor cannot take, ``tuned`` of another target or thread count
        or of none of the module's layers, or ``requantize`` with executor ``"naive"``, which
        computes in float.
    ModelError, TargetError
        If the module or the target is not supported.
    """
    _check_executor(executor)
    _check_requantize(requantize, executor)
    main_of(module)
    module = joined(module)
    resolved = targets.resolve(target)
    threads = pool.check(threads, here=targets.runs_here(resolved))
    module = bind_batch(module, executor, batch)
    tuned = _for_this(tuned, schedule, resolved, threads) if executor != "naive" else None

    def build() -> tuple[AnyProgram, Metadata]:
        if executor == "naive":
            return _build_naive(module, resolved, threads)
        return _build(module, resolved, threads, executor, schedule, tuned, requantize)

    if targets.is_cuda(resolved):
        return CudaLibrary(*build(), resolved)
    if not targets.runs_here(resolved):
        return CrossLibrary(*build(), resolved)
    if cache and compiled.enabled() and content.is_all_ours():
        chosen = tuned.fingerprint() if tuned else ""
        options = {
            "executor": executor,
            "schedule": schedule,
            "tuned": chosen,
            "requantize": requantize,
        }
        return _through_cache(content.digest(module, resolved, options), build, threads)
    program, metadata = build()
    return Library(program.executable, metadata, lambda: program)


def _for_this(tuned, schedule: str, target: tvm.target.Target, threads: int) -> Tuned | None:
    """The tuning result to use, None without one; InputError if it is one of something else."""
    if schedule == METASCHEDULE and tuned is None:
        raise InputError(
            f"schedule {schedule!r} is what tuning found: pass tuned=relaxquant.tune(..., "
            f"method={METASCHEDULE!r})"
        )
    if tuned is not None and schedule not in (AUTO, METASCHEDULE):
        raise InputError(f"tuned= chooses schedules and {schedule!r} was asked for: leave one out")
    tuned = load_tuned(tuned)
    if tuned is not None:
        tuned.check(targets.name(target), instruction_set(target), threads)
    return tuned


def _build(
    module,
    target,
    threads: int,
    executor: str,
    schedule: str,
    tuned: Tuned | None,
    requantize: str,
) -> tuple[Program | CudaProgram, Metadata]:
    lowered = lower(module, target, schedule, tuned, requantize)
    if tuned is not None:
        _check_hits(KernelTable(lowered.kernels), tuned)
    with tvm.transform.PassContext(opt_level=3), target:
        cuda = targets.is_cuda(target)
        planning = planning_pipeline(plan_memory=executor == "graph", cuda=cuda)
        planned = planning(lowered.module)
        kernels = KernelTable(lowered.kernels)
        metadata = _metadata(module, target, executor, threads, kernels, account(planned))
        metadata = replace(metadata, requantize=requantize)
        ready = machine_pipeline()(_with_metadata(planned, metadata))
    return (CudaProgram if cuda else Program)(ready, target), metadata


def _check_hits(kernels: KernelTable, tuned: Tuned) -> None:
    """Raise InputError where a tuning result knows none of the layers; log how many it knows."""
    layers = [record for record in kernels if record.macs]
    log.info("tuned kernels: %d of %d layers", kernels.tuned, len(layers))
    if layers and not kernels.tuned:
        raise InputError(
            f"the tuning result {tuned.path or ''} has {len(tuned.choices)} layers and none of the "
            f"{len(layers)} of this network: tune this module, or leave tuned= out"
        )


def _build_naive(module, target, threads: int) -> tuple[StockProgram | CudaStockProgram, Metadata]:
    kernels = KernelTable(stock_records(module))
    metadata = _metadata(module, target, "naive", threads, kernels, account(module))
    if targets.is_cuda(target):
        if any(record.precision in ("fp16", "int8") for record in kernels):
            import_intrinsics()  # TVM's rules for tensor cores would, ten times as slowly
        program = CudaStockProgram(_with_metadata(module, metadata), target)
        return program, replace(metadata, kernels=program.named(kernels))
    return StockProgram(_with_metadata(module, metadata), target), metadata


def _through_cache(key: str, build: Callable, threads: int) -> Library:
    """The library of an entry; made now if there is none, or none that loads."""
    # What an entry no longer tells, source() and export(), is compiled when it is asked for.
    found = compiled.find(key)
    if found:
        try:
            return _rebound(found, threads, functools.cache(lambda: build()[0]))
        except ModelError:
            compiled.discard(found)
    program, metadata = build()
    path = compiled.store(key, program.export)
    if path is None:
        return Library(program.executable, metadata, lambda: program)
    return _rebound(path, threads, lambda: program)


def _rebound(entry: Path, threads: int, program: Callable) -> Library:
    """The library of an entry, with the threads asked for now."""
    library = load(entry)
    # The file tells how many threads it was compiled for: with others it is written anew.
    kept = CachedProgram(entry if library.threads == threads else None, program)
    return library.rebound(threads, lambda: kept)


def _check_executor(executor: str) -> None:
    if executor not in EXECUTORS:
        hint = did_you_mean(executor, EXECUTORS)
        raise InputError(f"no executor is called {executor!r}{hint} (there are: {EXECUTORS})")


def _check_requantize(requantize: str, executor: str) -> None:
    check_requantize(requantize)
    if executor == "naive" and requantize != FLOAT:
        raise InputError(
            f"executor 'naive' computes in float and cannot requantize as {requantize!r}: use "
            "executor 'graph' or 'vm', or leave requantize= out"
        )


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
