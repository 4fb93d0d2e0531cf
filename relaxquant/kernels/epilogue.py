"""The end of a convolution: from an accumulator in registers to the stored activation.

The order of float operations is fixed (one multiply, one fused multiply-add for the residual,
clip, round to nearest even), and the fused operation is asked for by name, so that a NumPy model
of it can be compared bit for bit. Where a network is to give what TFLite gives, `fixed_point`
takes the place of floats.
"""

from __future__ import annotations

import numpy as np

from . import fixed_point
from .fixed_point import TFLITE
from .intrinsics import InstructionSet
from .requantize import clip_vector, from_float, fused_multiply_add, to_float
from .rounding import round_vector
from .spec import COMMON, EACH, ConvSpec, ConvWeights
from .tir import T, arg, lanes_at, splat, store, tensor_arg


class Epilogue:
    """Declares the epilogue's arguments and emits its code for one vector of accumulators.

    Parameters
    ----------
    spec : ConvSpec
        The layer.
    isa : InstructionSet
        Gives the vector width and the rounding instruction.
    batch
        Extent of the batch axis, an int or a TIR variable.
    """

    def __init__(self, spec: ConvSpec, isa: InstructionSet, batch):
        self.spec, self.isa = spec, isa
        integer = spec.is_integer
        channels = spec.out.padded_channels
        residual = spec.epilogue.residual
        self.bias = arg("bias", (channels,), "int32" if integer else "float32")
        self.late_bias = arg("late_bias", (channels,), "int32") if spec.epilogue.narrow else None
        count = {COMMON: 1, EACH: channels}.get(spec.weight_zero_points)
        self.weight_zero_point = arg("weight_zero_point", (count,), "int32") if count else None
        self.fixed_point = FixedPoint(spec, isa) if spec.epilogue.requantize == TFLITE else None
        scaled = integer and not self.fixed_point
        self.multiplier = arg("multiplier", (channels,), "float32") if scaled else None
        self.residual = tensor_arg("residual", residual, batch) if residual else None
        # low, high, residual_scale
        self.bounds = arg("bounds", (3,), "int32" if self.fixed_point else "float32")
        self.output = tensor_arg("output", spec.out, batch)

    def initial(self, channel, window_sum=None):
        """Start value of the accumulators of the channels from ``channel`` on.

        The bias, or, where it is added after the accumulator was narrowed, the zero point's part;
        and, where weights have zero points, what these take away from an output pixel whose
        window's values sum up to ``window_sum`` (`window_sums`); if all have the same, it is in the
        sum already.
        """
        at = lanes_at(channel, self.isa.lanes)
        if window_sum is None:
            return self.bias[at]
        window_sum = T.broadcast(window_sum, self.isa.lanes)
        if self.spec.weight_zero_points == EACH:
            window_sum = window_sum * self.weight_zero_point[at]
        return self.bias[at] - window_sum

    def finish(self, acc, n, channel, oh, ow) -> None:
        """Narrow, scale, add the residual, clip, round and store one vector of accumulators."""
        lanes, spec = self.isa.lanes, self.spec
        if self.late_bias is not None:
            acc = self._narrow(acc) + self.late_bias[lanes_at(channel, lanes)]
        if self.fixed_point:
            self._store_in_integers(acc, n, channel, oh, ow)
            return
        value = acc
        if self.multiplier is not None:
            value = T.cast(acc, f"float32x{lanes}") * self.multiplier[lanes_at(channel, lanes)]
        if self.residual is not None:
            value = self._add_residual(value, n, channel, oh, ow)
        if spec.epilogue.saturates:
            steps = round_vector(value, spec.out.rounding, self.isa)
            stored = saturated(steps + splat(_offset(spec), "int32", lanes), lanes)
        else:
            low, high = self.bounds[0], self.bounds[1]
            stored = from_float(value, low, high, spec.out, self.isa, spec.epilogue.clip)
        store(self.output, spec.out.vector_at(n, channel, oh, ow, lanes), stored)

    def _store_in_integers(self, acc, n, channel, oh, ow) -> None:
        lanes, out = self.isa.lanes, self.spec.out
        steps = self.fixed_point.multiply(acc, channel)
        if self.spec.epilogue.saturates:
            stored = saturated(steps, lanes)
        else:
            steps = clip_vector(steps, self.bounds[0], self.bounds[1], lanes)
            stored = T.cast(steps, f"{out.dtype}x{lanes}")
        store(self.output, out.vector_at(n, channel, oh, ow, lanes), stored)

    def _narrow(self, acc):
        """The accumulator as an integer of fewer bits would hold it, if it saturated."""
        end = 1 << (self.spec.epilogue.narrow - 1)
        lowest, highest = (splat(v, "int32", self.isa.lanes) for v in (-end, end - 1))
        return T.min(T.max(acc, lowest), highest)

    def _add_residual(self, value, n, channel, oh, ow):
        lanes, spec = self.isa.lanes, self.spec.epilogue.residual
        at = spec.vector_at(n, channel, oh, ow, lanes)
        steps = to_float(self.residual[tuple(at)], spec, lanes)
        return fused_multiply_add(steps, T.broadcast(self.bounds[2], lanes), value, lanes)


class FixedPoint:
    """Declares the arguments of TFLite's requantization, and emits it for a vector.

    Results are as they are stored, or less 128 where they then saturate at int8.
    """

    def __init__(self, spec: ConvSpec, isa: InstructionSet):
        self.spec, self.lanes = spec, isa.lanes
        channels = spec.out.padded_channels
        self.step_by_step, self.once = spec.epilogue.step_by_step, spec.epilogue.rounds_once
        kind = ((channels,), "int32") if self.step_by_step else ((2, channels // 2), "int64")
        self.multiplier = arg("multiplier", *kind)
        self.rounding = None if self.step_by_step else arg("rounding", *kind)
        self.right = arg("right", (channels,), "int32")
        self.left = arg("left", (channels,), "int32") if self.step_by_step else None

    def multiply(self, acc, channel):
        """The accumulators of the channels from ``channel`` on in steps of the output."""
        at = lanes_at(channel, self.lanes)
        if self.step_by_step:
            factors = self.multiplier[at], self.right[at], self.lanes, self.left[at]
            offset = splat(_offset(self.spec), "int32", self.lanes)
            return fixed_point.multiply(acc, *factors, once=self.once) + offset
        half = lanes_at(channel // 2, self.lanes // 2)
        pairs = ([array[k, half] for k in (0, 1)] for array in (self.multiplier, self.rounding))
        # Below a zero point of 0 all is clipped, whichever way it was rounded.
        signed = self.spec.out.zero_point > 0
        return fixed_point.multiply_at_once(
            acc, *pairs, self.right[at], self.lanes, signed, self.once
        )

    @staticmethod
    def parameters(spec: ConvSpec, weights: ConvWeights) -> list[np.ndarray]:
        """Arrays for the arguments; channels of the padding are shifted like others."""
        padding = spec.out.padded_channels - len(weights.shift)
        multiplier = np.pad(weights.multiplier, (0, padding))
        shift = np.pad(weights.shift, (0, padding), constant_values=-1)
        if not spec.epilogue.step_by_step:
            once = spec.epilogue.rounds_once
            return fixed_point.constants(multiplier, shift, _offset(spec), once)
        return [multiplier, np.maximum(-shift, 0) - 1, np.maximum(shift, 0)]


def _offset(spec: ConvSpec) -> int:
    """What is added to the steps."""
    return spec.out.zero_point - (128 if spec.epilogue.saturates else 0)


def saturated(steps, lanes: int):
    """int32 as uint8: 128 is added, and what leaves the range becomes the range's end."""
    steps = T.min(T.max(steps, splat(-128, "int32", lanes)), splat(127, "int32", lanes))
    stored = T.reinterpret(f"uint8x{lanes}", T.cast(steps, f"int8x{lanes}"))
    return T.bitwise_xor(stored, splat(128, "uint8", lanes))


def epilogue_parameters(spec: ConvSpec, weights: ConvWeights) -> list[np.ndarray]:
    """Arrays for the arguments `Epilogue` declares between the weights and the output.

    The residual, an activation, is not among them: `arguments` of a kernel say where it goes.
    """
    channels = spec.out.padded_channels
    arrays = [pad_to(corrected_bias(spec, weights), channels)]
    if spec.epilogue.narrow:
        arrays = [arrays[0] - pad_to(weights.bias, channels), pad_to(weights.bias, channels)]
    if spec.weight_zero_points:
        zero_point = weights.zero_point.astype(np.int32)
        each = spec.weight_zero_points == EACH
        arrays.append(pad_to(zero_point, channels) if each else zero_point[:1])
    if spec.epilogue.requantize == TFLITE:
        ends = np.array([weights.low, weights.high]) + spec.out.zero_point
        bounds = np.array([*ends, 0], np.int32)
        return [*arrays, *FixedPoint.parameters(spec, weights), bounds]
    bounds = [weights.low, weights.high, weights.residual_scale]
    if weights.multiplier is not None:
        arrays.append(pad_to(weights.multiplier.astype(np.float32), channels))
    return [*arrays, np.array(bounds, np.float32)]


def conv_arguments(spec: ConvSpec, weights: ConvWeights, packed: list[np.ndarray]) -> list:
    """A convolution's arguments as an `Implementation` lists them.

    Data, packed weights, bias (two where the accumulator is narrowed, see `Epilogue.initial`),
    zero points of the weights where they have any, multiplier, the residual where there is one,
    bounds.
    """
    *scaling, bounds = epilogue_parameters(spec, weights)
    residual = [1] if spec.epilogue.residual is not None else []
    return [0, *packed, *scaling, *residual, bounds]


def corrected_bias(spec: ConvSpec, weights: ConvWeights) -> np.ndarray:
    """The bias, less what the activations' zero point adds to every accumulator.

    ``sum((x - z) * w) = sum(x * w) - z * sum(w)``: the second term depends on weights alone. It
    wraps around at int32 as the accumulators do, so that a total that fits is exact even where
    this part of it does not fit.
    """
    if not spec.is_integer:
        return weights.bias.astype(np.float32)
    sums = weights.weight.astype(np.int64).sum(axis=(1, 2, 3))
    bias = weights.bias.astype(np.int64) - spec.data.zero_point * sums
    return bias.astype(np.int32)


def pad_to(vector: np.ndarray, size: int) -> np.ndarray:
    """``vector`` with zeros appended up to ``size`` elements."""
    return np.pad(vector, (0, size - len(vector)))
