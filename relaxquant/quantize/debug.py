"""``rq.debug``: which layers lose precision, where values are clipped, and how they are spread."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from tvm import IRModule

from ..kernels.weight_bits import bits_of
from .batches import checked_batches, input_spec, with_batch_1
from .calibrate import CompileFn, samples
from .debug_report import DebugReport, Histogram, LayerError, WeightError
from .graph import Node
from .points import Pair, Point, match
from .spliced import accumulated_module, own_module

BINS = 256


def debug(
    mod: IRModule,
    qmod: IRModule,
    batch: np.ndarray | Iterable,
    *,
    compile_fn: CompileFn | None = None,
) -> DebugReport:
    """Compare a quantized network with its original, tensor by tensor.

    Parameters
    ----------
    mod : IRModule
        The fp32 module.
    qmod : IRModule
        What `relaxquant.quantize` made of it.
    batch : numpy.ndarray, torch.Tensor or iterable of them
        float32 inputs, one batch or several; where the batch is symbolic of any size, and images
        are then run one by one.
    compile_fn : callable, optional
        As for `relaxquant.quantize`; by default both networks run in this library's own kernels.

    Returns
    -------
    DebugReport
        Signal-to-noise ratios, saturation and histograms; ``print`` it.

    Raises
    ------
    QuantizeError
        If the second module was not made from the first one, or the batch does not fit.

    Notes
    -----
    As onnxruntime's ``qdq_loss_debug``, with the error that a layer adds by itself besides.
    With `QConfig.cross_layer_equalization` tensors between equalized layers are other multiples of
    the original's, channel by channel: their ratios mean nothing, that of the result does.
    """
    spec = input_spec(mod)
    if spec.batch_symbol is not None:
        mod, qmod = (with_batch_1(module) for module in (mod, qmod))
    pair = match(mod, qmod)
    batches = list(checked_batches([batch] if hasattr(batch, "shape") else batch, spec))
    runs = [(compile_fn or compile_once)(make(pair)) for make in (own_module, accumulated_module)]
    collected = [_Collected(point) for point in pair.points]
    for sample in samples(batches, spec):
        both, accumulated = (list(map(np.asarray, run(sample))) for run in runs)
        exact, own = both[: len(collected)], both[len(collected) :]
        for one, *values in zip(collected, exact, accumulated, own, strict=True):
            one.add(*values)
    layer_of = _layers_by_end(pair)
    weights = {name: _weight_error(name, *pair.weights[name]) for name in pair.weights}
    bits = {end: weights[layer][0].bits for end, layer in layer_of.items()}
    return DebugReport(
        layers=tuple(one.error(bits.get(one.point.name, 0)) for one in collected),
        weights=tuple(error for error, _ in weights.values()),
        activation_histograms={one.point.name: one.histogram() for one in collected},
        weight_histograms={name: histogram for name, (_, histogram) in weights.items()},
    )


def compile_once(mod: IRModule):
    """A module in this library's kernels, for this machine, not kept on disk."""
    import relaxquant  # here, because relaxquant imports this package

    return relaxquant.compile(mod, cache=False)


class _Collected:
    """Sums over the samples seen of one point."""

    def __init__(self, point: Point):
        self.point = point
        self.signal = self.noise = self.own_noise = 0.0
        self.count = self.clipped = self.lowest = self.highest = 0
        self.spread = _Spread()

    def add(self, exact: np.ndarray, accumulated: np.ndarray, own: np.ndarray) -> None:
        """Take in one sample's values: the original's, and the quantized network's two."""
        exact = exact.astype(np.float64)
        self.signal += float(np.sum(exact**2))
        self.noise += float(np.sum((exact - accumulated) ** 2))
        self.own_noise += float(np.sum((exact - own) ** 2))
        self.count += exact.size
        self.spread.add(exact)
        codes = self.point.codes
        if codes is not None:
            low = (codes.lowest - codes.zero_point - 0.5) * codes.scale
            high = (codes.highest - codes.zero_point + 0.5) * codes.scale
            self.clipped += np.count_nonzero((exact < low) | (exact > high))
            found = codes.of(accumulated)
            self.lowest += np.count_nonzero(found <= codes.lowest)
            self.highest += np.count_nonzero(found >= codes.highest)

    def error(self, weight_bits: int) -> LayerError:
        """All of it."""
        codes = self.point.codes
        return LayerError(
            tensor=self.point.name,
            op=self.point.op,
            bits=codes.bits if codes else 0,
            weight_bits=weight_bits,
            sqnr=decibels(self.signal, self.noise),
            own_sqnr=decibels(self.signal, self.own_noise),
            clipped=self.clipped / self.count,
            at_lowest=self.lowest / self.count,
            at_highest=self.highest / self.count,
        )

    def histogram(self) -> Histogram:
        """The original's values, and the thresholds of the quantized tensor."""
        low, high = self.point.codes.range if self.point.codes else (-math.inf, math.inf)
        return Histogram(self.spread.counts, self.spread.edges, low, high)


class _Spread:
    """Counts in bins over [-reach, reach]; a larger value doubles the reach, merging bins."""

    def __init__(self):
        self.counts = np.zeros(BINS, np.int64)
        self.reach = 0.0

    @property
    def edges(self) -> np.ndarray:
        return np.linspace(-self.reach, self.reach, BINS + 1)

    def add(self, values: np.ndarray) -> None:
        largest = float(np.abs(values).max(initial=0))
        if self.reach == 0 and largest > 0:
            zeros = self.counts[0]  # all that was seen so far
            self.counts[:] = 0
            self.counts[BINS // 2] = zeros
            self.reach = largest
        while self.reach < largest:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(merged, BINS // 4)
            self.reach *= 2
        if self.reach == 0:
            self.counts[0] += values.size
            return
        places = (values.reshape(-1) + self.reach) * (BINS / (2 * self.reach))
        places = np.minimum(places.astype(np.int64), BINS - 1)
        self.counts += np.bincount(places, minlength=BINS)


def decibels(signal: float, noise: float) -> float:
    """``10 log10(signal / noise)`` of two sums of squares: infinite without noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _layers_by_end(pair: Pair) -> dict[str, str]:
    """{tensor that ends a layer's chain: the layer}."""
    return {pair.graph.nodes[c.end].name: pair.graph.nodes[c.root].name for c in pair.chains}


def _weight_error(name: str, exact: np.ndarray, node: Node) -> tuple[WeightError, Histogram]:
    """`node` dequantizes the layer's weights."""
    codes, scale = node.constants[0].value.numpy(), node.constants[1].value.numpy()
    lowest, highest = int(codes.min()), int(codes.max())
    bits = bits_of(codes) if codes.dtype == np.int8 else (highest - lowest).bit_length()
    spread = scale.astype(np.float64)
    if spread.ndim:
        shape = [1] * codes.ndim
        shape[int(node.attrs["axis"])] = -1
        spread = spread.reshape(shape)
    noise = float(np.sum((exact - codes * spread) ** 2))
    outside = (exact < (lowest - 0.5) * spread) | (exact > (highest + 0.5) * spread)
    error = WeightError(
        layer=name,
        bits=bits,
        sqnr=decibels(float(np.sum(exact.astype(np.float64) ** 2)), noise),
        clipped=float(np.mean(outside)),
        at_lowest=float(np.mean(codes == lowest)),
        at_highest=float(np.mean(codes == highest)),
    )
    reach = float(np.abs(exact).max()) or 1.0
    counts, edges = np.histogram(exact, BINS, (-reach, reach))
    return error, Histogram(counts, edges, lowest * scale, highest * scale)
