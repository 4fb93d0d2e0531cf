"""What the two ways to requantize change in a network's integers, counted tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import tvm

from ..errors import InputError, ModelError
from ..executors import compile
from ..kernels.fixed_point import REQUANTIZE
from .activations import quantized_activations, with_activations


@dataclass(frozen=True)
class Differences:
    """How many integers of one tensor ``"float"`` and ``"tflite"`` give differently.

    Attributes
    ----------
    name : str
        Relax variable that holds the tensor.
    values : int
        Integers compared, of all inputs.
    differing : int
        Those that are not equal.
    largest : int
        Largest difference, in steps.
    """

    name: str
    values: int
    differing: int
    largest: int

    @property
    def share(self) -> float:
        """Share of the integers that differ."""
        return self.differing / self.values

    def __str__(self) -> str:
        text = f"{self.name}: {self.differing} of {self.values} differ ({self.share:.2%})"
        return text + (f", by {self.largest} at most" if self.largest else "")


def requantize_differences(
    module: tvm.IRModule, inputs: Iterable[np.ndarray], **settings
) -> list[Differences]:
    """Run a network with ``requantize="float"`` and with ``"tflite"`` and compare its integers.

    A difference of one step in an early layer is input to all later ones, so shares grow with
    depth; the last entry is what the network's own integers come to.

    Parameters
    ----------
    module : tvm.IRModule
        QDQ Relax.
    inputs : iterable of numpy.ndarray
        Each an input of the network.
    **settings
        Of `relaxquant.compile`.

    Returns
    -------
    list of Differences
        One for each quantized activation, in program order.

    Raises
    ------
    InputError
        Without inputs.
    ModelError
        If the module quantizes nothing.
    """
    names = quantized_activations(module)
    if not names:
        raise ModelError("the module quantizes no activation: pass what rq.quantize returned")
    outputs = with_activations(module, names)
    libraries = [compile(outputs, requantize=name, **settings) for name in REQUANTIZE]
    totals = np.zeros((len(names), 3), np.int64)  # values, differing, largest
    for x in inputs:
        pairs = zip(*(library(x) for library in libraries), strict=True)
        for total, (first, second) in zip(totals, pairs, strict=True):
            steps = np.abs(first.astype(np.int64) - second)
            total[:2] += steps.size, np.count_nonzero(steps)
            total[2] = max(total[2], steps.max())
    if not totals[0, 0]:
        raise InputError("there are no inputs: pass at least one array")
    return [Differences(name, *map(int, row)) for name, row in zip(names, totals, strict=True)]
