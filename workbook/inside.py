"""Into a quantized network: which layers lose, what is clipped, and how values are spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import relaxquant as rq

if TYPE_CHECKING:
    from relaxquant.quantize import DebugReport, Sensitivity
    from relaxquant.quantize.debug_report import Histogram
    from workbook.widths import Subject


def report(subject: Subject, config: rq.QConfig, images: int) -> DebugReport:
    """Compare a network with what a config makes of it, on the first calibration images."""
    seen = np.concatenate(subject.batches)[:images]
    return rq.debug(subject.module, subject.quantized(config), seen)


def layer_lines(found: DebugReport, count: int = 8) -> list[dict[str, Any]]:
    """The layers that lose most by themselves, worst first.

    Parameters
    ----------
    found : relaxquant.quantize.DebugReport
    count : int
        How many.
    """
    worst = sorted(found.layers, key=lambda layer: layer.own_sqnr)[:count]
    return [
        {
            "tensor": layer.tensor,
            "layer": layer.op,
            "bits of weights": str(layer.weight_bits or "float"),
            "bits of the tensor": str(layer.bits or "float"),
            "own signal to noise (dB)": layer.own_sqnr,
            "with all before it (dB)": layer.sqnr,
            "clipped (%)": 100 * layer.clipped,
            "at the highest integer (%)": 100 * layer.at_highest,
        }
        for layer in worst
    ]


def ranking(subject: Subject, config: rq.QConfig, images: int) -> Sensitivity:
    """Layers by what quantizing each alone costs, on the first calibration images."""
    seen = np.concatenate(subject.batches)[:images]
    return rq.sensitivity(subject.module, [seen], config, target=subject.settings["target"])


def ranking_lines(ranked: Sensitivity, count: int = 8) -> list[dict[str, Any]]:
    """The costliest layers."""
    total = sum(row.parameters for row in ranked)
    return [
        {
            "layer": row.layer,
            "operator": row.op,
            "bits": f"w{row.bits}a{row.input_bits}",
            "divergence of the answers (nats)": row.kl,
            "signal to noise of the answers (dB)": row.sqnr,
            "another top class (%)": row.top1,
            "share of the weights (%)": 100 * row.parameters / total,
        }
        for row in ranked[:count]
    ]


@dataclass(frozen=True)
class Spread:
    """The values of one tensor before quantization, and the levels they become.

    Attributes
    ----------
    name : str
    centres, counts : numpy.ndarray
        Of the bins of the values before.
    levels, level_counts : numpy.ndarray
        The values that are left after it, and how many become each; empty where a scale a channel
        makes too many of them.
    low, high : float
        The thresholds; of several channels the median's.
    span : tuple of float
        Smallest and largest upper threshold of the channels; twice the same for one scale.
    """

    name: str
    centres: np.ndarray
    counts: np.ndarray
    levels: np.ndarray
    level_counts: np.ndarray
    low: float
    high: float
    span: tuple[float, float]


def spread(name: str, histogram: Histogram, bits: int) -> Spread:
    """Read a histogram of `relaxquant.debug`.

    Parameters
    ----------
    name : str
    histogram : Histogram
        Before quantization, with the thresholds.
    bits : int
        Of the integers.
    """
    centres = (histogram.edges[:-1] + histogram.edges[1:]) / 2
    low, high = (float(np.median(bound)) for bound in (histogram.low, histogram.high))
    span = (float(np.min(histogram.high)), float(np.max(histogram.high)))
    levels, counts = np.empty(0), np.empty(0)
    if np.ndim(histogram.high) == 0 and np.isfinite([low, high]).all():
        levels = np.linspace(low, high, _levels(low, high, bits))
        step = levels[1] - levels[0]
        nearest = np.clip(np.rint((centres - low) / step), 0, len(levels) - 1).astype(int)
        counts = np.bincount(nearest, histogram.counts, len(levels))
    return Spread(name, centres, histogram.counts, levels, counts, low, high, span)


def _levels(low: float, high: float, bits: int) -> int:
    """How many integers lie between two thresholds: symmetric ones leave one out."""
    return 2**bits - 1 if low == -high and bits > 1 else 2**bits


def spreads(found: DebugReport, count: int = 3) -> tuple[list[Spread], list[Spread]]:
    """Weights and activations of some layers, from the first to the last.

    Returns
    -------
    tuple of two lists of Spread
        Of the weights, and of the quantized activations.
    """
    weights = [
        spread(error.layer, found.weight_histograms[error.layer], error.bits)
        for error in _some(found.weights, count)
    ]
    quantized = [layer for layer in found.layers if layer.bits]
    activations = [
        spread(layer.tensor, found.activation_histograms[layer.tensor], layer.bits)
        for layer in _some(quantized, count)
    ]
    return weights, activations


def _some(items, count: int) -> list:
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]
