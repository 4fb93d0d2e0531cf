"""``rq.sensitivity``: what quantizing each layer alone costs the network's answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from rich.progress import Progress
from tvm import IRModule
from tvm.target import Target

from .annotate import annotate
from .batches import InputSpec, checked_batches, input_spec, with_batch_1
from .calibrate import CompileFn, samples
from .checks import QuantizeError
from .config import NBITS, QConfig
from .debug import compile_once, decibels
from .graph import prepare
from .points import Pair, match
from .spliced import alone_module

METRICS = ("kl", "sqnr", "top1")


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs if it alone is quantized.

    Attributes
    ----------
    layer : str
        Name of the tensor that its convolution or matmul computes, as `QConfig.layer_bits` has it.
    op : str
        ``"nn.conv2d"`` or ``"matmul"``.
    bits, input_bits : int
        Of its weights, and of what it reads.
    kl : float
        Kullback-Leibler divergence of the softmax of the answers from the original's, nats, mean.
    sqnr : float
        Signal to quantization noise of the answers, dB.
    top1 : float
        Share of inputs whose largest answer is another one, percent.
    parameters, macs : int
        Its weights, and its multiply-accumulates for one input.
    """

    layer: str
    op: str
    bits: int
    input_bits: int
    kl: float
    sqnr: float
    top1: float
    parameters: int
    macs: int


class Sensitivity(Sequence):
    """Costs of layers, the largest first; prints as a table."""

    def __init__(self, rows: Sequence[LayerCost]):
        self.rows = tuple(rows)

    def __getitem__(self, index):
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        header = ["layer", "op", "bits", "KL", "SQNR dB", "top-1 changed", "weights", "MACs"]
        cells = [header] + [
            [row.layer, row.op, f"w{row.bits}a{row.input_bits}", f"{row.kl:.2e}"]
            + [f"{row.sqnr:.1f}", f"{row.top1:.1f}%", f"{row.parameters:,}", f"{row.macs:,}"]
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = (
            [cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(pairs)]
            for pairs in (list(zip(row, widths, strict=True)) for row in cells)
        )
        return "\n".join("  ".join(line).rstrip() for line in lines)

    __repr__ = __str__


def sensitivity(
    mod: IRModule,
    data: Iterable,
    config: QConfig | None = None,
    *,
    bits: int | Sequence[int] | None = None,
    metric: str = "kl",
    progress: bool = False,
    compile_fn: CompileFn | None = None,
    target: str | dict | Target = "native",
) -> Sensitivity:
    """Rank layers by what quantizing each of them alone costs.

    One layer at a time has its weights and what it reads rounded, as `relaxquant.quantize` does
    it for the whole network with this config; all else is computed in float.

    Parameters
    ----------
    mod : IRModule
        The fp32 module.
    data : iterable
        float32 batches, as for calibration, which they serve too. A few dozen images rank layers.
    config : QConfig, optional
        As for `relaxquant.quantize`. Cross-layer equalization, which changes the original, is left
        out.
    bits : int or sequence of int, optional
        Bits of the weights, one row a layer for each; default: `config.nbit_weight`.
    metric : str
        What ranks: ``"kl"``, ``"sqnr"`` or ``"top1"``; `LayerCost` has all three.
    progress : bool
        Draw a progress bar.
    compile_fn, target
        As for `relaxquant.quantize`.

    Returns
    -------
    Sensitivity
        Rows, the costliest first; equal ones in network order.

    Raises
    ------
    QuantizeError
        If the data or an argument does not fit, or no layer can be quantized.

    Notes
    -----
    The one-at-a-time analysis of NVIDIA's ``pytorch-quantization`` and of Wu et al., "Integer
    Quantization for Deep Learning Inference", arXiv 2004.09602, section 6.1. Errors of several
    layers need not add up.
    """
    if metric not in METRICS:
        raise QuantizeError(f"metric is {metric!r}; allowed: {', '.join(map(repr, METRICS))}")
    config = config if config is not None else QConfig.current() or QConfig.best()
    widths = _widths(bits, config)
    if not annotate(prepare(mod), replace(config, layer_bits=())).layers:
        raise QuantizeError("no layer of the network is quantized with this config")
    spec = input_spec(mod)
    batches = list(checked_batches(data, spec))
    runner = Answers(batches, spec, compile_fn)
    exact = runner.of(with_batch_1(mod))
    pairs = {n: _quantized(mod, n, config, batches, compile_fn, target) for n in widths}
    layers = [(n, name) for n in widths for name in pairs[n].weights]
    rows = []
    with Progress(disable=not progress) as bar:
        for nbit, layer in bar.track(layers, description="sensitivity"):
            answers = runner.of(alone_module(pairs[nbit], layer))
            rows.append(_row(pairs[nbit], layer, nbit, exact, answers))
    ahead = {"kl": lambda row: -row.kl, "sqnr": lambda row: row.sqnr, "top1": lambda r: -r.top1}
    return Sensitivity(sorted(rows, key=ahead[metric]))


class Answers:
    """What networks answer to the same inputs.

    Parameters
    ----------
    batches : sequence of numpy.ndarray
        Checked.
    spec : InputSpec
        The input they fit.
    compile_fn : callable, optional
        As for `relaxquant.quantize`.
    """

    def __init__(
        self, batches: Sequence[np.ndarray], spec: InputSpec, compile_fn: CompileFn | None
    ):
        self.batches, self.spec, self.compile_fn = batches, spec, compile_fn

    def of(self, mod: IRModule) -> np.ndarray:
        """The first result of a module for all inputs, float64 of shape (N, values)."""
        run = (self.compile_fn or compile_once)(mod)
        parts = [self._first(run, sample) for sample in self._samples()]
        return np.concatenate(parts).astype(np.float64)

    def _samples(self) -> Iterator[np.ndarray]:
        return samples(self.batches, self.spec)

    @staticmethod
    def _first(run: Callable, sample: np.ndarray) -> np.ndarray:
        found = run(sample)
        found = found[0] if isinstance(found, list | tuple) else found
        return np.array(found).reshape(len(sample), -1)


def divergence(exact: np.ndarray, answers: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of ``softmax(answers)`` from ``softmax(exact)``, nats."""
    p, q = _log_softmax(exact), _log_softmax(answers)
    return max(float(np.mean(np.sum(np.exp(p) * (p - q), axis=1))), 0.0)


def top1_changed(exact: np.ndarray, answers: np.ndarray) -> float:
    """Share of rows whose largest value is at another place, percent."""
    return 100 * float(np.mean(exact.argmax(axis=1) != answers.argmax(axis=1)))


def _log_softmax(values: np.ndarray) -> np.ndarray:
    shifted = values - values.max(axis=1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))


def _widths(bits, config: QConfig) -> tuple[int, ...]:
    widths = (config.nbit_weight,) if bits is None else bits
    widths = (widths,) if isinstance(widths, int) else tuple(widths)
    if not widths or any(isinstance(n, bool) or n not in NBITS for n in widths):
        allowed = ", ".join(map(str, NBITS))
        raise QuantizeError(f"bits is {bits!r}; allowed: one or several of {allowed}")
    return widths


def _quantized(mod: IRModule, nbit: int, config: QConfig, batches, compile_fn, target) -> Pair:
    from .pipeline import quantize  # here, because it chooses bits with what is in this file

    alike = replace(
        config,
        nbit_weight=nbit,
        layer_bits=(),
        nbit_ends=None,
        do_simulation=False,
        partition_conversions="disabled",
        cross_layer_equalization=False,
    )
    qmod = quantize(mod, alike, batches, compile_fn=compile_fn, target=target)
    return match(*map(with_batch_1, (mod, qmod)))


def _row(pair: Pair, layer: str, nbit: int, exact: np.ndarray, answers: np.ndarray) -> LayerCost:
    node = next(n for n in pair.graph.nodes if n.name == layer)
    weight, _ = pair.weights[layer]
    source = pair.graph.nodes[node.inputs[0]].name
    codes = next(p.codes for p in pair.points if p.name == source)
    per_channel = weight.size // weight.shape[0 if node.op == "nn.conv2d" else -1]
    return LayerCost(
        layer=layer,
        op=node.op,
        bits=nbit,
        input_bits=codes.bits,
        kl=divergence(exact, answers),
        sqnr=decibels(float(np.sum(exact**2)), float(np.sum((exact - answers) ** 2))),
        top1=top1_changed(exact, answers),
        parameters=weight.size,
        macs=per_channel * prod(node.shape[1:]),
    )
