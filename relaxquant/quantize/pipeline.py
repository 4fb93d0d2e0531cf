"""The three steps in a row."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator

from tvm import IRModule
from tvm.target import Target

from ..lower import simulate
from .annotate import Annotation, annotate
from .batches import checked_batches, input_spec
from .calibrate import CompileFn, calibrate
from .config import QConfig, QuantizeError
from .equalize import equalize
from .graph import prepare, read_graph
from .insert_qdq import insert_qdq
from .integers import find_integers
from .layer_inputs import needs_inputs, observe_inputs
from .layer_weights import quantize_layers
from .mixed import Budget, choose_bits
from .operators import LAYERS
from .partition import partition


def quantize(
    mod: IRModule,
    config: QConfig | None = None,
    calibration: Iterable | None = None,
    *,
    progress: bool = False,
    compile_fn: CompileFn | None = None,
    target: str | dict | Target = "native",
    budget: Budget | float | None = None,
) -> IRModule:
    """Quantize a fp32 network after training: annotate, calibrate, insert q/dq.

    Parameters
    ----------
    mod : IRModule
        fp32 Relax with one function ``main`` of one dataflow block, as `relaxquant.frontends`
        gives it; not changed.
    config : QConfig, optional
        Settings; by default those of the ``with`` statement around, else `QConfig.best()`.
    calibration : iterable, optional
        Batches: float32 NumPy arrays or torch tensors of the input's shape, of any size where the
        batch is symbolic. Read one at a time, and once for each of the chunks that
        `calibrate_chunk_by` makes. Only mode ``global_scale`` needs none.
    progress : bool
        Draw progress bars.
    compile_fn : callable, optional
        How to run the network for calibration: compiles a module and returns a function from an
        input to the list of outputs. By default `relaxquant.compile` for this machine.
    target : str, dict or tvm.target.Target
        What the module will be compiled for, which decides ``reduce_range="auto"``; see
        `relaxquant.target.resolve`.
    budget : Budget or float, optional
        Mixed precision: bits of weights layer by layer, as few as keep the loss within so many
        percentage points of top-1 agreement with the fp32 network on the calibration data;
        `relaxquant.summary` shows them. Takes one run over the data for each layer and candidate.

    Returns
    -------
    IRModule
        QDQ Relax: what `relaxquant.compile` turns into integer kernels, and TVM's own pipeline
        into float arithmetic around quantize and dequantize. With `do_simulation` float Relax that
        computes exactly what these kernels do, see `relaxquant.lower.simulate`; with
        `partition_conversions` in three functions, see `partition`.

    Raises
    ------
    QuantizeError
        If the module, the settings or the data do not fit; one message names the thing and the
        way out.
    TargetError
        If the target is unknown.

    Warns
    -----
    UserWarning
        If no layer can be quantized; the module is then returned in float.

    Notes
    -----
    The steps and the settings are those of TVM's ``relay.quantize`` (removed with Relay); symmetric
    weights for each channel follow Krishnamoorthi, "Quantizing deep convolutional networks for
    efficient inference", arXiv 1806.08342.
    """
    config = config if config is not None else QConfig.current() or QConfig.best()
    if not isinstance(config, QConfig):
        raise QuantizeError(f"config is a {type(config).__name__}: give a QConfig")
    config = config.for_target(target)
    if budget is not None:
        calibration = list(checked_batches(calibration, input_spec(mod)))
        config = choose_bits(
            mod,
            config,
            calibration,
            budget,
            compile_fn=compile_fn,
            progress=progress,
            target=target,
        )
    mod = prepare(mod)
    config = config.with_ends([n.name for n in read_graph(mod).nodes if n.op in LAYERS])
    annotation = annotate(mod, config)
    if not annotation.layers:
        _warn_nothing(annotation)
        return mod
    if config.cross_layer_equalization:
        calibration = _reread(calibration)
        mod = prepare(
            equalize(mod, annotation, calibration, compile_fn=compile_fn, progress=progress)
        )
        annotation = annotate(mod, config)
    qmod = _quantized(mod, annotation, config, calibration, compile_fn, progress)
    if config.do_simulation:
        return simulate(qmod)
    if config.partition_conversions == "disabled":
        return qmod
    fully_integral = config.partition_conversions == "fully_integral"
    return partition(qmod, annotation, fully_integral=fully_integral)


def _quantized(
    mod: IRModule,
    annotation: Annotation,
    config: QConfig,
    calibration: Iterable | None,
    compile_fn: CompileFn | None,
    progress: bool,
) -> IRModule:
    if needs_inputs(config):
        calibration = _reread(calibration)
    running = {"compile_fn": compile_fn, "progress": progress}
    ranges = calibrate(mod, annotation, config, calibration, **running)
    integers = find_integers(annotation, config, ranges)
    inputs = None
    if needs_inputs(config):
        inputs = observe_inputs(mod, annotation, config, integers, calibration, **running)
    weights = quantize_layers(annotation, config, integers, inputs, progress=progress)
    return insert_qdq(mod, annotation, config, integers, weights)


def _reread(calibration: Iterable | None) -> Iterable | None:
    """The data in a form that can be read more than once."""
    return list(calibration) if isinstance(calibration, Iterator) else calibration


def _warn_nothing(annotation: Annotation) -> None:
    reasons = [f"{kept.name} ({kept.op}): {kept.reason}" for kept in annotation.kept_float]
    shown = "; ".join(reasons[:5]) or "it has no operators"
    warnings.warn(f"no layer of the network is quantized: {shown}", stacklevel=3)
