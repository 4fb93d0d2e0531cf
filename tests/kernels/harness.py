"""Build a kernel, run it on NumPy arrays, and the targets and layers that tests run it on."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace

import hypothesis
import numpy as np
import pytest
import tvm

from relaxquant import target as targets
from relaxquant.errors import TargetError
from relaxquant.kernels import image_nchw_spatial_pack as image
from relaxquant.kernels.fixed_point import takes_at_once
from relaxquant.kernels.intrinsics import InstructionSet, instruction_set
from relaxquant.kernels.pack import block_channels, pack_conv, unblock_channels
from relaxquant.kernels.registry import Implementation
from relaxquant.kernels.spec import ConvSpec, ConvWeights, EpilogueSpec, TensorSpec, Window
from relaxquant.kernels.tile import Tile
from relaxquant.kernels.weight_store import bits_of_panels
from relaxquant.lower.fixed_point import quantize_multiplier
from relaxquant.lower.realize import MOST_THAT_SATURATES

# One CPU for each instruction set. The levels of the x86-64 psABI hold nothing but the features in
# question, so their code runs on every CPU that has those, whoever made it.
TARGETS = {
    "generic": "generic",
    "avx2": "x86-64-v3",
    "avx512": {"kind": "llvm", "mcpu": "x86-64-v4"},
    "native": "native",
}
# A longer search than a test run has time for: EXAMPLES_FACTOR=20 pytest tests/kernels
EXAMPLES_FACTOR = int(os.environ.get("EXAMPLES_FACTOR", "1"))


def examples(count: int) -> hypothesis.settings:
    """Settings for a property that builds a kernel an example: the same examples in every run."""
    return hypothesis.settings(
        max_examples=count * EXAMPLES_FACTOR,
        deadline=None,
        derandomize=EXAMPLES_FACTOR == 1,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )


@functools.cache
def why_not_runnable(name: str) -> str | None:
    """Why kernels for a target of `TARGETS` cannot run on this machine; None if they can."""
    try:
        isa = instruction_set(targets.resolve(TARGETS[name]))
    except TargetError as error:
        return str(error)
    missing = isa.features - targets.features(targets.resolve("native"))
    return f"this CPU has no {', '.join(sorted(missing))}" if missing else None


RUNNABLE = [name for name in TARGETS if why_not_runnable(name) is None]


def target_of(name: str) -> tvm.target.Target:
    """The target, or skip the test with the reason why it cannot run here."""
    reason = why_not_runnable(name)
    if reason:
        pytest.skip(reason)
    return targets.resolve(TARGETS[name])


def build(function: tvm.tirx.PrimFunc, target: tvm.target.Target):
    """A PrimFunc as a module with one function, ``main``."""
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    return tvm.tirx.build(module, target=target)


def to_memory(stored: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """(N, C, H, W) in the tensor's layout, with anything finite in the padded channels."""
    if spec.halo:
        top, left, bottom, right = spec.halo
        border = ((0, 0), (0, 0), (top, bottom), (left, right), (0, 0))
        image = block_channels(stored, spec.block)
        return np.pad(image, border, constant_values=spec.zero_point)
    if spec.block == 1:
        return stored.reshape(spec.physical_shape(len(stored)))
    padding = spec.padded_channels - spec.channels
    noise = np.random.default_rng(padding).integers(
        1, 256, (len(stored), padding, *spec_size(spec))
    )
    whole = np.concatenate([stored, noise.astype(spec.dtype)], axis=1)
    return block_channels(whole, spec.block)


def from_memory(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """The inverse of `to_memory`; what lies in the padded channels must be finite."""
    assert np.isfinite(array).all(), "a value was not written, or overflowed"
    if spec.block == 1:
        return array.reshape(len(array), spec.channels, *spec_size(spec))
    return unblock_channels(array, spec.channels)


def spec_size(spec: TensorSpec) -> tuple[int, int]:
    """Height and width."""
    return spec.height, spec.width


def run(library, arguments: list[np.ndarray], out: TensorSpec) -> np.ndarray:
    """Run ``main`` and return its output as (N, C, H, W); the batch is that of the first argument.

    The output holds NaN (or the highest integer) before, so that what a kernel forgets to write is
    seen.
    """
    shape = out.physical_shape(len(arguments[0]))
    unwritten = out.integers[1] if out.integers else np.nan
    output = tvm.runtime.tensor(np.full(shape, unwritten, out.dtype))
    library["main"](*map(tvm.runtime.tensor, arguments), output)
    return from_memory(output.numpy(), out)


@dataclass(frozen=True)
class Layer:
    """A convolution and its inputs as (N, C, H, W)."""

    spec: ConvSpec
    weights: ConvWeights
    data: np.ndarray
    residual: np.ndarray | None = None


def stored_values(rng, spec: TensorSpec, batch: int) -> np.ndarray:
    """Random activations: the whole range of integers, or normal floats."""
    shape = (batch, spec.channels, spec.height, spec.width)
    if spec.integers:
        return rng.integers(spec.integers[0], spec.integers[1] + 1, shape).astype(spec.dtype)
    return rng.standard_normal(shape).astype(spec.dtype)


def random_tensor(rng, spec: TensorSpec, batch: int) -> np.ndarray:
    """As `stored_values`, with runs of the extremes in one tensor of four."""
    values = stored_values(rng, spec, batch)
    if spec.integers and rng.integers(4) == 0:
        return np.where(values < sum(spec.integers) // 2, *spec.integers).astype(spec.dtype)
    return values


def as_nhwc(spec: TensorSpec) -> TensorSpec:
    """The tensor in NHWC; plain images and images of four channels stay as they are."""
    block = spec.block if spec.block < 16 else -(-spec.channels // 16) * 16
    return replace(spec, block=block, nhwc=True)


def conv_layer(
    *,
    batch: int = 1,
    symbolic: bool = False,
    channels: int = 16,
    out_channels: int = 16,
    size: tuple[int, int] = (6, 7),
    kernel: tuple[int, int] = (3, 3),
    strides: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    block: int = 16,
    nhwc: bool = False,
    halo: bool = False,
    dtype: str = "uint8",
    zero_point: int = 0,
    out_dtype: str = "uint8",
    out_zero_point: int = 0,
    residual: str | None = None,
    residual_zero_point: int = 0,
    clip: bool = False,
    narrow: int | None = None,
    weight_max: int = 127,
    weight_dtype: str = "int8",
    rounding: str = "TOEVEN",
    weight_zero_points: str = "",
    requantize: str = "float",
    left_shifts: bool = False,
    rounds_once: bool = False,
    seed: int = 0,
) -> Layer:
    """A random convolution whose outputs spread over the range of their integers, and past it."""
    rng = np.random.default_rng(seed)
    window = Window(kernel, strides, padding, dilation)
    data = TensorSpec(channels, *size, dtype, block, zero_point if dtype == "uint8" else 0)
    if halo:
        data = replace(data, block=channels, halo=image.halo(data, window))
    out_zero_point = out_zero_point if out_dtype == "uint8" else 0
    out = TensorSpec(out_channels, *window.output_size(*size), out_dtype, 16, out_zero_point)
    if nhwc:
        data, out = as_nhwc(data), as_nhwc(out)
    out = replace(out, rounding=rounding)
    extra = None
    if residual:
        residual_zero_point = residual_zero_point if residual == "uint8" else 0
        extra = replace(out, dtype=residual, zero_point=residual_zero_point)
    narrow = narrow if data.integers else None
    epilogue = EpilogueSpec(extra, clip, narrow, requantize, left_shifts, rounds_once)
    batch_size = None if symbolic else batch
    spec = ConvSpec(batch_size, data, out, window, groups, epilogue, weight_zero_points)
    weights = _conv_weights(rng, spec, weight_max, weight_dtype)
    unbounded = (weights.low, weights.high) == (0 - out.zero_point, 255 - out.zero_point)
    if weights.shift is not None:
        step_by_step = not takes_at_once(weights.shift)
        epilogue = replace(epilogue, step_by_step=step_by_step, saturates=unbounded)
    elif spec.is_integer and out_dtype == "uint8" and not residual:
        saturates = unbounded and weights.multiplier.max() <= MOST_THAT_SATURATES
        epilogue = replace(epilogue, saturates=bool(saturates))
    spec = replace(spec, epilogue=epilogue)
    return Layer(
        spec=spec,
        weights=weights,
        data=random_tensor(rng, data, batch),
        residual=random_tensor(rng, extra, batch) if extra else None,
    )


def _conv_weights(rng, spec: ConvSpec, weight_max: int, weight_dtype: str) -> ConvWeights:
    shape = (spec.out.channels, spec.data.channels // spec.groups, *spec.window.kernel)
    low, high = (-3.5, 2.25) if spec.epilogue.clip else (-np.inf, np.inf)
    unit = {"uint8": 20, "int16": 5000}.get(spec.out.dtype, 1)
    if spec.out.integers:
        lowest, highest = (end - spec.out.zero_point for end in spec.out.integers)
        low, high = max(unit * low, lowest), min(unit * high, highest)
    residual_scale = rng.uniform(0.1, 2)
    taps = np.prod(shape[1:])
    if not spec.is_integer:
        weight = rng.standard_normal(shape) * unit
        bias = rng.standard_normal(shape[0])
        weight, bias = weight.astype(spec.data.dtype), bias.astype(np.float32)
        return ConvWeights(weight, bias, None, low, high, residual_scale)
    if spec.precision == "int16":  # as far as int32 sums allow
        weight_max = min(weight_max, int(0.8 * 2**31 / 2**15 / taps))
    lowest = -128 if weight_max == 127 else -weight_max
    weight = rng.integers(lowest, weight_max + 1, shape).astype(weight_dtype)
    spread = (100 if spec.precision == "int8" else 20000) * weight_max * np.sqrt(taps)
    spread = min(spread, 0.2 * 2**31)
    bias = rng.integers(-spread, spread, shape[0]).astype(np.int32)
    if spec.epilogue.narrow:  # some sums saturate, some do not
        weight = np.sign(weight) * np.minimum(np.abs(weight), 2)
        weight, spread = weight.astype(weight_dtype), 1.0 * (1 << (spec.epilogue.narrow - 1))
        bias = rng.integers(-spread, spread, shape[0]).astype(np.int32)
    unit = {"float32": 2, "uint8": 60, "int16": 15000}[spec.out.dtype] / spread
    multiplier = (unit * rng.uniform(0.3, 1.5, shape[0])).astype(np.float32)
    zero_point = None
    if spec.weight_zero_points:  # the ends of int8 among them
        zero_point = rng.integers(-128, 128, shape[0]).astype(np.int32)
        zero_point[:2] = (-128, 127)[: shape[0]]
        if spec.weight_zero_points == "common":
            zero_point[:] = rng.integers(-128, 128)
    shift = None
    if spec.epilogue.requantize == "tflite":
        scale = multiplier.astype(np.float64)
        if spec.epilogue.step_by_step:  # the first channel's outputs are mostly at the bounds
            scale[0] *= 2.0 ** np.ceil(3 - np.log2(scale[0]))
        multiplier, shift = quantize_multiplier(scale)
        low, high = (int(np.floor(end)) for end in (low, high))
    return ConvWeights(weight, bias, multiplier, low, high, residual_scale, zero_point, shift)


def implement(layer: Layer, isa: InstructionSet, rule, tile: Tile | None = None) -> Implementation:
    """What one row of the schedule table gives, with a register tile of the test's choice."""
    return rule(layer.spec, layer.weights, isa, tile)


def stored_bits(layer: Layer, tile_channels: int) -> int:
    """Bits of each weight in memory, by the direct schedule."""
    panels = pack_conv(layer.spec, layer.weights.weight, tile_channels)
    return bits_of_panels(panels, layer.spec)


def run_layer(layer: Layer, target_name: str, rule, tile: Tile | None = None) -> np.ndarray:
    """Build a convolution with a schedule's rule and run it on the layer's own inputs."""
    target = target_of(target_name)
    implementation = implement(layer, instruction_set(target), rule, tile)
    assert implementation is not None, "the schedule does not take this layer"
    library = build(implementation.build(), target)
    return run_implementation(library, implementation, layer)


def run_implementation(library, implementation: Implementation, layer: Layer) -> np.ndarray:
    """Run a built convolution on the layer's inputs."""
    activations = [to_memory(layer.data, layer.spec.data)]
    if layer.residual is not None:
        activations.append(to_memory(layer.residual, layer.spec.epilogue.residual))
    arguments = [
        activations[argument] if isinstance(argument, int) else argument
        for argument in implementation.arguments
    ]
    return run(library, arguments, layer.spec.out)
