"""Parameters of what TFLite computes in integers beside convolutions: ``requantize="tflite"``.

Source: our own code for the arithmetic of TensorFlow Lite's ``kernels/add.cc``, ``mul.cc``,
``reduce.cc`` and ``quantize.cc``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..kernels import integer_elementwise
from ..kernels.fixed_point import TFLITE
from ..kernels.pool2d import PoolSpec
from ..kernels.table import inputs_of
from .fixed_point import multiply_by_quantized_multiplier, quantize_multiplier, round_half_away
from .graph import Node, Value


def takes(node: Node) -> bool:
    """Whether TFLite's integers are asked for and all that the node reads and writes is 8 bits."""
    values = (*node.inputs, node.output)
    return node.requantize == TFLITE and all(value.dtype in ("uint8", "int8") for value in values)


def binary_parameters(node: Node, low: float, high: float) -> np.ndarray:
    """Of `kernels.integer_elementwise`, for a sum or product."""
    (a, b), out = (value.scale for value in node.inputs), node.output.scale
    if node.op == "mul":
        # TFLite multiplies and divides its float32 scales before it widens the quotient.
        factors = [np.float64(np.float32(a) * np.float32(b) / np.float32(out))]
    else:
        common = 2 * max(a, b)
        factors = [a / common, b / common, common / (2**integer_elementwise.HEADROOM * out)]
    low, high = round_half_away(low), round_half_away(high)
    return integer_elementwise.parameters(low, high, [_integers(factor) for factor in factors])


def average(
    node: Node, spec: PoolSpec, low: float, high: float
) -> tuple[PoolSpec, list[np.ndarray]]:
    """Specification and parameters of a pooling average or a mean."""
    data, output = node.inputs[0], node.output
    low, high = round_half_away(low), round_half_away(high)
    if node.mean:
        multiplier, shift = _mean_factor(
            data.scale / output.scale, int(np.prod(node.window.kernel))
        )
        spec = replace(spec, requantize=TFLITE, mean=True)
        return spec, [integer_elementwise.parameters(low, high, [(multiplier, shift)])]
    if not data.same_steps(output):
        return spec, [np.array([low, high, data.scale / output.scale], np.float32)]
    spec = replace(spec, requantize=TFLITE, signed=output.signed)
    return spec, [np.array([low, high, 1], np.float32)]


def _mean_factor(scale: float, count: int) -> tuple[int, int]:
    """Multiplier and shift of a mean over ``count`` elements, which divide by it too."""
    multiplier, shift = _integers(scale)
    by = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << by) // count, shift - by


def requantized(data: Value, output: Value, low: float, high: float) -> np.ndarray:
    """The table of a quantized activation in other steps."""
    steps = inputs_of(data.spec) - data.zero_point
    steps = multiply_by_quantized_multiplier(steps, *_integers(data.scale / output.scale))
    return (np.clip(steps, low, high) + output.zero_point).astype(output.dtype)


def _integers(factor: float) -> tuple[int, int]:
    multiplier, shift = quantize_multiplier(factor)
    return int(multiplier), int(shift)
