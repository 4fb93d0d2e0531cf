"""The integers of every activation, and what they ask of the scales of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .annotate import Annotation
from .config import QConfig
from .int32_budget import Budget, find_budget
from .scales import Codes, Range, activation_codes
from .weights import bias_safe_scale


@dataclass(frozen=True)
class Integers:
    """What calibration's ranges become.

    Parameters
    ----------
    annotation : Annotation
        What `annotate` said of the network.
    ranges : mapping of int to Range
        What `calibrate` found.
    budget : Budget
        What int32 sums allow.
    """

    annotation: Annotation
    ranges: Mapping[int, Range]
    budget: Budget

    def codes(self, index: int) -> Codes:
        """The integers of a quantized tensor."""
        # Of the tensor it shares the scale with, type and zero point too.
        tensor = self.annotation.tensors[self.annotation.tensors[index].shares]
        largest = self.budget.largest.get(tensor.node)
        return activation_codes(self.ranges[tensor.node], tensor.dtype, tensor.nbit, largest)

    def data_codes(self, layer: int) -> Codes:
        """The integers that a layer reads."""
        return self.codes(self.annotation.graph.nodes[layer].inputs[0])

    def smallest_scale(self, layer: int) -> np.ndarray:
        """Lower bound of the scales of a layer's weights, for its sums to fit int32."""
        bias = bias_safe_scale(self.annotation.bias_of(layer), self.data_codes(layer).scale)
        return np.maximum(bias, self.budget.smallest_scale.get(layer, 0))


def find_integers(annotation: Annotation, config: QConfig, ranges: Mapping[int, Range]) -> Integers:
    """The integers of all activations of a calibrated network."""
    return Integers(annotation, ranges, find_budget(annotation, config, ranges))
