"""Step 2, calibrate: run the fp32 network on data and find each tensor's range."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from operator import length_hint

import numpy as np
from rich.progress import track
from tvm import IRModule, relax

from .annotate import Annotation, QTensor
from .batches import InputSpec, checked_batches, input_spec
from .calibrators import calibrator
from .chunks import calibration_chunks
from .config import QConfig, QuantizeError
from .graph import rebuild
from .histogram import Ends
from .scales import Range, positive_codes
from .thresholds import Form

Runner = Callable[[np.ndarray], Sequence[np.ndarray]]
CompileFn = Callable[[IRModule], Runner]


def calibrate(
    mod: IRModule,
    annotation: Annotation,
    config: QConfig,
    batches: Iterable | None = None,
    *,
    compile_fn: CompileFn | None = None,
    progress: bool = False,
) -> dict[int, Range]:
    """Find the range of every tensor that has a scale of its own.

    Parameters
    ----------
    mod : IRModule
        The fp32 module that was annotated.
    annotation : Annotation
        What `annotate` said of `mod`.
    config : QConfig
        `calibrate_mode`, `global_scale`, `percentile`, `asymmetric` and `calibrate_chunk_by` act
        here.
    batches : iterable, optional
        float32 arrays of the input's shape, read once for each chunk, one at a time. Where the
        batch is symbolic they may be of any size, and images are run one by one. Not used in mode
        ``global_scale``.
    compile_fn : callable, optional
        Compiles a module and returns a function from an input to the list of outputs; by default
        `relaxquant.compile` for this machine.
    progress : bool
        Draw a progress bar.

    Returns
    -------
    dict of int to Range
        The values that are not clipped, by node. In mode ``global_scale`` they end one step below
        it, so that the step is `global_scale` divided by a power of two, as in relay.quantize.

    Raises
    ------
    QuantizeError
        If the data does not fit, or a tensor of the network becomes NaN or infinite.
    """
    tensors = {t.node: t for t in annotation.tensors.values() if t.is_calibrated}
    if config.calibrate_mode == "global_scale":
        return {node: _global_range(tensor, config) for node, tensor in tensors.items()}
    chunks = calibration_chunks(annotation, config, batches)
    if len(chunks) > 1:
        whole, found = replace(config, calibrate_chunk_by=-1), {}
        for chunk in chunks:
            found |= calibrate(mod, chunk, whole, batches, compile_fn=compile_fn, progress=progress)
        return found
    nodes = list(tensors)
    spec = input_spec(mod)
    checked = checked_batches(batches, spec)
    first = next(checked)  # before anything is compiled, which takes long
    observer, range_of = calibrator(config)
    observers = {node: observer() for node in nodes}
    run = observed_runner(mod, annotation, nodes, spec, compile_fn)
    for sample in samples(tracked(chain([first], checked), batches, "calibrate", progress), spec):
        for node, values in run(sample).items():
            _update(observers[node], values, annotation.graph.nodes[node].name)
    return {node: range_of(o, _form(tensors[node], config)) for node, o in observers.items()}


def _form(tensor: QTensor, config: QConfig) -> Form:
    return Form(tensor.dtype, tensor.nbit, tensor.signed, config.asymmetric)


def _global_range(tensor: QTensor, config: QConfig) -> Range:
    positive = positive_codes(tensor.signed, tensor.nbit)
    return tensor.range_up_to(config.global_scale * positive / (positive + 1))


def observed_module(
    mod: IRModule, annotation: Annotation, nodes: Sequence[int], batch_symbol: str | None = None
) -> IRModule:
    """A module that returns the tuple of `nodes`, at batch 1 where the batch is symbolic.

    Nodes are ends of fused chains, so compiling it fuses what compiling `mod` fuses.
    """
    outputs = relax.Tuple([annotation.graph.nodes[node].var for node in nodes])
    observed = rebuild(mod, annotation.graph, result=outputs)
    if batch_symbol is not None:
        observed = relax.transform.BindSymbolicVars({batch_symbol: 1})(observed)
    return relax.transform.DeadCodeElimination()(observed)


def observed_runner(
    mod: IRModule,
    annotation: Annotation,
    nodes: Sequence[int],
    spec: InputSpec,
    compile_fn: CompileFn | None,
) -> Callable[[np.ndarray], dict[int, np.ndarray]]:
    """A function from an input to the values of `nodes`; the input itself needs no compiling."""
    inputs = [node for node in nodes if annotation.graph.nodes[node].op == "input"]
    computed = [node for node in nodes if node not in inputs]
    runner = None
    if computed:
        observed = observed_module(mod, annotation, computed, spec.batch_symbol)
        runner = (compile_fn or _compile_native)(observed)

    def run(sample: np.ndarray) -> dict[int, np.ndarray]:
        values = dict.fromkeys(inputs, sample)
        outputs = runner(sample) if runner else ()
        return values | dict(zip(computed, map(np.asarray, outputs), strict=True))

    return run


def _compile_native(mod: IRModule) -> Runner:
    import relaxquant  # here, because relaxquant imports this package

    return relaxquant.compile(mod, target="native", executor="graph")


def tracked(checked: Iterator, batches, words: str, progress: bool) -> Iterable:
    """`checked` with a progress bar that knows how many `batches` there are, if they tell."""
    total = length_hint(batches, 0) or None
    return track(checked, words, total=total, disable=not progress)


def samples(batches: Iterable[np.ndarray], spec: InputSpec) -> Iterator[np.ndarray]:
    """Whole batches, or single images where the module was bound to batch 1: memory stays small."""
    for batch in batches:
        if spec.batch_symbol is None:
            yield batch
        else:
            yield from np.split(batch, len(batch))


def _update(observer: Ends, values: np.ndarray, name: str) -> None:
    try:
        observer.update(values)
    except QuantizeError as error:
        raise QuantizeError(f"in calibration, tensor '{name}' {error}") from error
