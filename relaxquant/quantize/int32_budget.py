"""16 bits: how many of them activations and weights may use for int32 to hold every sum.

A product of 16 by 16 bits fills int32 by itself. With ``a`` the largest integer of an activation
and ``k`` the magnitudes of a channel's weights summed, in units of their scale, no partial sum is
above ``a * k`` plus the bias. So 8-bit weights leave the activations of a layer of 4608 weights a
channel some 14 bits; 16-bit weights leave them 7, and there both give up as much: the coarser of
the two decides on the error. Whether it really fits is proven when the network is lowered, from
the weights as they were rounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..kernels.int32_sums import INT32_MAX
from .annotate import Annotation
from .config import QConfig
from .graph import Node
from .operators import LAYERS
from .scales import Range, positive_codes, scale_of
from .weights import quantize_weight, weight_levels

ROOM = INT32_MAX * (1 - 2.0**-12)
"""What may be used: scales are float32, and the bias may still be corrected a little."""


@dataclass(frozen=True)
class Budget:
    """What int32 allows.

    Parameters
    ----------
    largest : dict of int to int
        Largest integer of each activation of int16 that has a scale of its own, by node.
    smallest_scale : dict of int to numpy.ndarray
        Lower bound of the weight scales of each layer that reads one, by node: (channels,), or ()
        for one scale; 0 where there is none.
    """

    largest: dict[int, int] = field(default_factory=dict)
    smallest_scale: dict[int, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class _Load:
    """What the channels of one layer add up for each unit of the activation's largest integer."""

    tensor: int  # that has the scale
    weights: np.ndarray  # (channels,) with all levels used, the bias among them
    rounding: float  # what rounding adds to a channel at most
    scale: np.ndarray  # (channels,) with all levels used
    levels: int

    @property
    def largest(self) -> float:
        """The activation's largest integer, with weights no coarser than that."""
        alone = ROOM / (self.weights.max() + self.rounding)
        coarser = math.sqrt(max(self.levels / alone, 1))
        return ROOM / (self.weights.max() / coarser + self.rounding)

    def smallest_scale(self, largest: int) -> np.ndarray:
        """The weight scales with which ``largest`` fits; 0 where it does anyway."""
        coarser = self.weights * largest / (ROOM - self.rounding * largest)
        return np.where(coarser > 1, self.scale * coarser, 0)


def find_budget(annotation: Annotation, config: QConfig, ranges: Mapping[int, Range]) -> Budget:
    """Share int32 between the activations of int16 and the weights of the layers that read them.

    Parameters
    ----------
    annotation : Annotation
        What `annotate` said of the network.
    config : QConfig
        Its weight settings act here.
    ranges : mapping of int to Range
        What `calibrate` found.
    """
    budget, loads = Budget(), {}
    for tensor in annotation.tensors.values():
        if tensor.is_calibrated and tensor.dtype == "int16":
            codes = positive_codes(tensor.signed, tensor.nbit)
            budget.largest[tensor.node] = min(codes, np.iinfo(np.int16).max)
    for index in annotation.layers:
        node = annotation.graph.nodes[index]
        tensor = annotation.tensors[node.inputs[0]].shares
        if tensor in budget.largest:
            loads[index] = load = _load(annotation, node, config, tensor, ranges[tensor])
            budget.largest[tensor] = min(budget.largest[tensor], int(load.largest))
    for index, load in loads.items():
        smallest = load.smallest_scale(budget.largest[load.tensor])
        per_channel = config.weight_granularity == "per_channel"
        budget.smallest_scale[index] = smallest if per_channel else smallest.max()
    return budget


def _load(annotation: Annotation, node: Node, config: QConfig, tensor: int, found: Range) -> _Load:
    weight = node.constants[0].value.numpy()
    config = config.for_layer(node.name)
    axis, levels = LAYERS[node.op], weight_levels(config)
    per_channel = config.weight_granularity == "per_channel"
    scale = quantize_weight(
        weight, axis if per_channel else None, levels, 0.0, config.weight_scale
    )[1]
    magnitudes = np.abs(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1))
    scale = np.broadcast_to(scale, len(magnitudes)).astype(np.float64)
    most = max(levels.highest, -levels.lowest)
    steps = np.minimum(magnitudes / scale[:, None], most).sum(axis=1)
    bias = annotation.bias_of(node.index)
    unit = float(scale_of(found.threshold, 1)) * scale
    rounding = 0.5 * magnitudes.shape[1]
    return _Load(tensor, steps + np.abs(bias) / unit, rounding, scale, most)
