"""What `relaxquant.debug` finds, as plain numbers and as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Histogram:
    """Counts of a tensor's exact values in equal bins.

    Attributes
    ----------
    counts : numpy.ndarray
        int64, shape (bins,).
    edges : numpy.ndarray
        float64, shape (bins + 1,), real units.
    low, high : float or numpy.ndarray
        The thresholds, real units: what lies outside is clipped. For weights with a scale of each
        channel, arrays of shape (channels,). Infinite for a float tensor.
    """

    counts: np.ndarray = field(repr=False)
    edges: np.ndarray = field(repr=False)
    low: float | np.ndarray = field(repr=False, default=-math.inf)
    high: float | np.ndarray = field(repr=False, default=math.inf)


@dataclass(frozen=True)
class LayerError:
    """How far one tensor is from its fp32 original.

    Attributes
    ----------
    tensor : str
        Its name in both modules.
    op : str
        The layer whose chain it ends, or the operator that computes it.
    bits : int
        Bits of its integers; 0 for a tensor that stays float.
    weight_bits : int
        Bits of the layer's weights; 0 without quantized weights.
    sqnr : float
        Signal to quantization noise, dB, of the quantized network: all errors up to here.
    own_sqnr : float
        The same if all tensors that this one is computed from were exact: this layer's error,
        with the rounding of what it reads and of itself.
    clipped : float
        Share of the original's values that lie outside the range of its integers.
    at_lowest, at_highest : float
        Shares of values at the lowest and the highest integer. The lowest one of a tensor that
        cannot be negative is its 0.
    """

    tensor: str
    op: str
    bits: int
    weight_bits: int
    sqnr: float
    own_sqnr: float
    clipped: float
    at_lowest: float
    at_highest: float


@dataclass(frozen=True)
class WeightError:
    """How far a layer's weights are from their fp32 original; fields as in `LayerError`."""

    layer: str
    bits: int
    sqnr: float
    clipped: float
    at_lowest: float
    at_highest: float


@dataclass(frozen=True)
class DebugReport:
    """A quantized network beside its original; prints as a table.

    Attributes
    ----------
    layers : tuple of LayerError
        In network order.
    weights : tuple of WeightError
        One for each layer with quantized weights, in network order.
    activation_histograms : dict of str to Histogram
        By tensor, of the fp32 values.
    weight_histograms : dict of str to Histogram
        By layer, of the fp32 weights.
    """

    layers: tuple[LayerError, ...]
    weights: tuple[WeightError, ...]
    activation_histograms: dict[str, Histogram] = field(repr=False)
    weight_histograms: dict[str, Histogram] = field(repr=False)

    @property
    def worst(self) -> LayerError:
        """The layer that loses most by itself."""
        return min(self.layers, key=lambda layer: layer.own_sqnr)

    def __str__(self) -> str:
        header = ["tensor", "op", "bits", "weights", "SQNR dB", "own dB", "clipped", "low", "high"]
        rows = [header] + [_cells(layer, layer is self.worst) for layer in self.layers]
        widths = [max(map(len, column)) for column in zip(*(row[:9] for row in rows), strict=True)]
        return "\n".join(_line(row, widths) for row in rows)

    __repr__ = __str__


def _cells(layer: LayerError, is_worst: bool) -> list[str]:
    cells = [
        layer.tensor,
        layer.op,
        str(layer.bits or "float"),
        str(layer.weight_bits or "-"),
        f"{layer.sqnr:.1f}",
        f"{layer.own_sqnr:.1f}",
    ]
    shares = [layer.clipped, layer.at_lowest, layer.at_highest]
    cells += [f"{100 * share:.2f}%" if layer.bits else "-" for share in shares]
    return cells + ["  <- worst"] * is_worst


def _line(row: list[str], widths: list[int]) -> str:
    names = [cell.ljust(width) for cell, width in zip(row[:2], widths, strict=False)]
    numbers = [cell.rjust(width) for cell, width in zip(row[2:9], widths[2:], strict=True)]
    return "  ".join([*names, *numbers]) + "".join(row[9:])
