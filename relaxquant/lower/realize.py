"""Realization: from real-valued scales to the integers and multipliers a kernel is given.

The arithmetic of a quantized layer (Jacob et al., "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", CVPR 2018): with ``x = sx * (X - zx)``,
``w = sw * W`` and ``y = sy * (Y - zy)``::

    Y = zy + round(sx * sw / sy * (sum((X - zx) * W) + round(b / (sx * sw))))

with one ``sw`` for each output channel. The multiplier stays in float32: on a CPU with vector
floats it costs one instruction, where a fixed-point one costs several. Under
``requantize="tflite"`` it is fixed-point all the same, so that results are TFLite's own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..kernels import convert, elementwise, integer_elementwise, pool2d, resize, softmax, table
from ..kernels.fixed_point import TFLITE, takes_at_once
from ..kernels.intrinsics import InstructionSet
from ..kernels.registry import Implementation, implement_conv2d
from ..kernels.spec import INTEGERS, ConvSpec, ConvWeights, EpilogueSpec, zero_points_of
from ..kernels.tir import CUDA
from ..kernels.tuned import Tuned
from . import integer
from .fixed_point import quantize_multiplier, round_half_away
from .graph import Node, Value

INT32_MAX = 2**31 - 1
MOST_THAT_SATURATES = 0.5  # times any int32, and 255 more, is an int32 still
LIMITS = {**INTEGERS, "int8": (-128, 127)}  # int8 only where the caller gives or takes it


def realize(
    node: Node,
    batch: int | None,
    isa: InstructionSet,
    schedule: str,
    tuned: Tuned | None = None,
) -> Implementation:
    """The kernel for a node that does not stay with TVM, with its parameters."""
    if node.op == "conv2d":
        spec, weights = conv_spec(node, batch), conv_weights(node)
        if isa.machine == CUDA and spec.epilogue.requantize == TFLITE:
            # What `multiply_at_once` is given suits vectors whose even lanes are one register.
            spec = replace(spec, epilogue=replace(spec.epilogue, step_by_step=True))
        return implement_conv2d(spec, weights, isa, schedule, tuned)
    return _REALIZERS[node.op](node, batch, isa)


def conv_spec(node: Node, batch: int | None) -> ConvSpec:
    """Specification of a convolution's kernel."""
    residual = node.residual
    epilogue = EpilogueSpec(residual.spec if residual else None, node.clip is not None, node.narrow)
    if in_fixed_point(node):
        epilogue = replace(
            epilogue,
            requantize=TFLITE,
            step_by_step=not takes_at_once(multipliers(node)[1]),
            rounds_once=node.dense,
            saturates=_integer_bounds(node) == _ends(node.output),
        )
    elif node.integer and node.output.is_quantized and not residual:
        small = (float_multiplier(node) <= MOST_THAT_SATURATES).all()
        unbounded = bounds(node.output, node.clip) == _ends(node.output)
        uint8 = node.output.dtype == "uint8"
        epilogue = replace(epilogue, saturates=bool(uint8 and small and unbounded))
    return ConvSpec(
        batch=batch,
        data=node.inputs[0].spec,
        out=node.output.spec,
        window=node.window,
        groups=node.groups,
        epilogue=epilogue,
        weight_zero_points=zero_points_of(node.weight.zero_point) if node.integer else "",
    )


def _ends(output: Value) -> tuple[int, int]:
    """The lowest and highest step of a quantized output, before the zero point is added."""
    return tuple(end - output.zero_point for end in INTEGERS[output.dtype])


def _integer_bounds(node: Node) -> tuple[int, int]:
    """Clip range of a convolution in whole steps, as TFLite rounds it."""
    return tuple(int(round_half_away(end)) for end in bounds(node.output, node.clip))


def conv_weights(node: Node) -> ConvWeights:
    """Weights, bias and scales of a convolution in the units of its accumulator and output."""
    output, residual = node.output, node.residual
    bias = np.zeros(len(node.weight.array)) if node.bias is None else node.bias
    low, high = bounds(output, node.clip)
    residual_scale = residual.scale / output.scale if residual else 1.0
    if not node.integer:
        # The accumulator is in output units already: no multiplier is needed.
        weight = node.weight.dequantized.astype(np.float64) / output.scale
        weight = weight.astype(node.inputs[0].float_dtype)
        return ConvWeights(weight, bias / output.scale, None, low, high, residual_scale)
    multiplier, shift = float_multiplier(node), None
    if in_fixed_point(node):
        multiplier, shift = multipliers(node)
        low, high = _integer_bounds(node)
    return ConvWeights(
        narrowest(node.weight.array),
        bias_steps(node),
        multiplier,
        low,
        high,
        residual_scale,
        node.weight.zero_point,
        shift,
    )


def float_multiplier(node: Node) -> np.ndarray:
    """Output units for one step of a convolution's accumulator, float32 (O,).

    In float32 and in this order, as ONNX Runtime's QLinearConv computes it: two networks that
    differ in the last bit of their multipliers give other integers wherever a value lies near the
    middle of two.
    """
    unit = np.float32(node.inputs[0].scale) * node.weight.scale.astype(np.float32)
    return unit / np.float32(node.output.scale)


def in_fixed_point(node: Node) -> bool:
    """Whether a convolution requantizes as TFLite does, uint8 to uint8, where that is asked for.

    Not one that adds a residual to its sums before they are quantized, of which TFLite knows none.
    """
    uint8 = all(value.dtype == "uint8" for value in (node.inputs[0], node.output))
    takes_part = uint8 and node.integer and node.output.is_quantized and not node.residual
    return node.requantize == TFLITE and takes_part


def multipliers(node: Node) -> tuple[np.ndarray, np.ndarray]:
    """TFLite's integer multiplier and shift for each output channel of a convolution.

    The scales are multiplied in float64; for convolutions of uint8 weights, whose kernels are
    older, in float32.
    """
    data, weight = node.inputs[0].scale, node.weight.scale
    product = data * weight
    if node.weight.float32_scales and not node.dense:
        product = (np.float32(data) * weight.astype(np.float32)).astype(np.float64)
    return quantize_multiplier(product / node.output.scale)


def bias_steps(node: Node) -> np.ndarray:
    """Bias of an integer convolution in units of its accumulator, int32 (O,)."""
    unit = node.inputs[0].scale * node.weight.scale
    bias = np.zeros(len(unit)) if node.bias is None else node.bias
    return np.clip(np.rint(bias / unit), -INT32_MAX, INT32_MAX).astype(np.int32)


def narrowest(weight: np.ndarray) -> np.ndarray:
    """int16 weights as int8 where all fit: half the bytes, and the same products."""
    fits = weight.min(initial=0) >= -128 and weight.max(initial=0) <= 127
    return weight.astype(np.int8, copy=False) if fits else weight


def bounds(output: Value, clip: tuple[float, float] | None) -> tuple[float, float]:
    """Clip range in output units before the zero point is added: the dtype's and the layer's."""
    low, high = clip if clip is not None else (-np.inf, np.inf)
    if output.dtype in LIMITS:
        lowest, highest = LIMITS[output.dtype]
        low = max(low / output.scale, lowest - output.zero_point)
        high = min(high / output.scale, highest - output.zero_point)
    return low, high


def _pool(node: Node, batch, isa) -> Implementation:
    data, output = node.inputs[0], node.output
    kind = node.op.removesuffix("_pool2d")
    spec = pool2d.PoolSpec(kind, batch, data.spec, output.spec, node.window, node.count_include_pad)
    parameters = pool2d.pool_parameters(spec, data.scale / output.scale, *bounds(output, node.clip))
    if kind == "avg" and integer.takes(node):
        spec, parameters = integer.average(node, spec, *bounds(output, node.clip))
    return _memory_bound(
        f"{kind}_pool2d", spec, isa, lambda: pool2d.build(spec, isa), [0, *parameters]
    )


def _binary(node: Node, batch, isa) -> Implementation:
    """A sum or product of two activations."""
    specs = [value.spec for value in (*node.inputs, node.output)]
    if integer.takes(node):
        spec = integer_elementwise.BinarySpec(node.op, batch, *specs)
        build = integer_elementwise.build
        parameters = integer.binary_parameters(node, *bounds(node.output, node.clip))
    elif node.op == "add":
        spec, build = elementwise.AddSpec(batch, *specs), elementwise.build_add
        parameters = _scales_and_bounds(node)
    else:
        spec, build = elementwise.MulSpec(batch, *specs), elementwise.build_mul
        a, b = node.inputs
        scale = a.scale * b.scale / node.output.scale
        parameters = elementwise.scales_and_bounds([scale], *bounds(node.output, node.clip))
    return _memory_bound(node.op, spec, isa, lambda: build(spec, isa), [0, 1, parameters])


def _concat(node: Node, batch, isa) -> Implementation:
    spec = elementwise.ConcatSpec(
        batch, tuple(value.spec for value in node.inputs), node.output.spec
    )
    parameters = _scales_and_bounds(node)
    if integer.takes(node) and not all(value.same_steps(node.output) for value in node.inputs):
        spec = replace(spec, requantize=TFLITE)
        parameters = elementwise.tflite_concat_parameters(
            [(value.scale, value.zero_point) for value in node.inputs],
            node.output.scale,
            *bounds(node.output, node.clip),
        )
    arguments = [*range(len(node.inputs)), parameters]
    return _memory_bound(
        "concat", spec, isa, lambda: elementwise.build_concat(spec, isa), arguments
    )


def _convert(node: Node, batch, isa) -> Implementation:
    data, output = node.inputs[0], node.output
    low, high = bounds(output, node.clip)
    if integer.takes(node) and data.scale != output.scale:
        return _table(replace(node, table=integer.requantized(data, output, low, high)), batch, isa)
    same = data.scale == output.scale and node.clip is None and data.dtype in LIMITS
    shift = 128 if (data.dtype, output.dtype) == ("int8", "uint8") else 0
    copies = same and output.dtype == "uint8" and output.zero_point == data.zero_point + shift
    spec = convert.ConvertSpec(batch, data.spec, output.spec, copies)
    scale = data.scale / output.scale
    parameters = np.array([low, high, scale], np.float32)
    return _memory_bound("convert", spec, isa, lambda: convert.build(spec, isa), [0, parameters])


def _softmax(node: Node, batch, isa) -> Implementation:
    data, output = node.inputs[0], node.output
    spec = softmax.SoftmaxSpec(batch, data.spec, output.spec)
    bounds_ = np.array([*bounds(output, node.clip), 1 / output.scale], np.float32)
    arguments = [0, softmax.exponentials(data.scale), bounds_]
    return _memory_bound("softmax", spec, isa, lambda: softmax.build(spec, isa), arguments)


def _pad(node: Node, batch, isa) -> Implementation:
    spec = resize.PadSpec(batch, node.inputs[0].spec, node.output.spec, node.window.padding)
    return _memory_bound("pad", spec, isa, lambda: resize.build_pad(spec, isa), [0])


def _resize(node: Node, batch, isa) -> Implementation:
    data, output = node.inputs[0].spec, node.output.spec
    linear, mode = node.resize
    spec = resize.ResizeSpec(batch, data, output, linear, linear and node.output.signed)
    arguments = [0]
    for size, wanted in ((data.height, output.height), (data.width, output.width)):
        if linear:
            arguments += resize.between(size, wanted, mode, spec.signed)
        else:
            arguments += resize.nearest(size, wanted, mode)
    return _memory_bound("resize", spec, isa, lambda: resize.build_resize(spec, isa), arguments)


def _table(node: Node, batch, isa) -> Implementation:
    spec = table.TableSpec(batch, node.inputs[0].spec, node.output.spec)
    return _memory_bound("table", spec, isa, lambda: table.build(spec, isa), [0, node.table])


def _scales_and_bounds(node: Node) -> np.ndarray:
    scales = [value.scale / node.output.scale for value in node.inputs]
    return elementwise.scales_and_bounds(scales, *bounds(node.output, node.clip))


def _memory_bound(name: str, spec, isa: InstructionSet, build, arguments) -> Implementation:
    return Implementation(
        schedule="nchwc_elementwise",
        instructions="",
        key=(name, spec, isa.name),
        build=build,
        arguments=arguments,
    )


_REALIZERS = {
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "add": _binary,
    "mul": _binary,
    "table": _table,
    "softmax": _softmax,
    "pad": _pad,
    "resize": _resize,
    "concat": _concat,
    "clip": _convert,
    "quantize": _convert,
    "cast": _convert,
    "convert": _convert,
    "load": _convert,
    "store": _convert,
}
