"""The readers of single Relax operators; see `read`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..kernels.fixed_point import TFLITE
from ..kernels.rounding import TO_EVEN
from ..kernels.spec import FLOATS, Window
from ..parts import read_sum
from ..qdq import QUANTIZE, read_rounding
from .graph import Node, Value
from .read import (
    QuantizedConstant,
    Reader,
    Unsupported,
    dtype_of,
    float_output,
    reads,
    shape_of,
    weight_of,
    window_of,
)
from .unary import function_table

BITS = {"int8": 8, "int16": 16}
CONSTANTS = ("int8", "uint8", "int16", "int32")  # of weights, and of biases
AT_INTERFACE = ("float32", "int8", "uint8")  # what images callers give and take
TO_CHANNELS_FIRST, TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


@reads("nn.conv2d")
def conv2d(reader: Reader, var, call) -> Value:
    """Convolution in NCHW with constant OIHW weights."""
    attrs = call.attrs
    if (attrs["data_layout"], attrs["kernel_layout"]) != ("NCHW", "OIHW"):
        raise Unsupported(f"conv2d in {attrs['data_layout']}/{attrs['kernel_layout']}")
    data = reader.value(call.args[0], rank=4)
    weight = weight_of(reader, call.args[1], axis=0, data=data)
    window = window_of(call, weight.array.shape[2:], data, shape_of(var))
    output = float_output(var)
    return reader.add(
        "conv2d",
        [data],
        output,
        window=window,
        groups=int(attrs["groups"]),
        weight=weight,
        reason=reader.keep_float.get(var.name, ""),
    )


@reads("matmul")
def dense(reader: Reader, var, call) -> Value:
    """Dense layer: a convolution whose kernel covers the whole image."""
    data = reader.value(call.args[0], rank=2)
    weight = weight_of(reader, call.args[1], axis=1, data=data)
    if weight.array.ndim != 2:
        raise Unsupported(f"matmul with weights of shape {weight.array.shape}")
    channels, height, width = data.shape[1], 1, 1
    channels_last = False
    if data in reader.flattened:
        data = reader.defined_by[data].inputs[0]
        channels_last = data in reader.transposed
        data = reader.transposed.get(data, data)
        channels, height, width = data.shape[1:]
    if channels_last:
        kernel = weight.array.T.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
    else:
        kernel = weight.array.T.reshape(-1, channels, height, width)
    output = float_output(var)
    return reader.add(
        "conv2d",
        [data],
        output,
        window=Window((height, width)),
        dense=True,
        weight=replace(weight, array=kernel),
        reason=reader.keep_float.get(var.name, ""),
    )


@reads("reshape", "flatten")
def flatten(reader: Reader, var, call) -> Value:
    """(N, C, H, W) to (N, C * H * W); other reshapes stay with TVM.

    The node itself is a plain TVM reshape; dense layers look through it, so it is usually dead.
    Between (N, C, 1, 1) and (N, C) it is nothing at all.
    """
    data = reader.value(call.args[0])
    shape = shape_of(var)
    output = Value(var.name, shape, data.dtype, data.scale, data.zero_point)
    if data.is_quantized and {shape, data.shape} == {data.shape[:2], (*data.shape[:2], 1, 1)}:
        return reader.add("view", [data], output)
    if len(data.shape) != 4 or len(shape) != 2 or shape[0] != data.shape[0]:
        raise Unsupported(f"reshape from {data.shape} to {shape}")
    reader.flattened.add(output)
    return reader.add("flatten", [data], output, call=call, reason="reshape of a feature map")


@reads("permute_dims")
def permute_dims(reader: Reader, var, call) -> Value:
    """The caller's (N, H, W, C) seen as (N, C, H, W), or the way back for what is returned.

    Any other one of an activation stays with TVM; dense layers look through it to (N, H, W, C).
    """
    known = reader.lookup(call.args[0])
    axes = call.attrs["axes"] and tuple(int(axis) for axis in call.attrs["axes"])
    if not isinstance(known, Value) or axes not in (TO_CHANNELS_FIRST, TO_CHANNELS_LAST):
        raise Unsupported(f"permute_dims by {axes}")
    if axes == TO_CHANNELS_FIRST:
        if known not in reader.inputs or known.dtype not in AT_INTERFACE:
            raise Unsupported("permute_dims of something else than an input")
        output = Value(var.name, shape_of(var), known.dtype, foreign=True, channels_last=True)
        return reader.add("view", [known], output, call=call)
    data = reader.value(call.args[0], rank=4)
    if var in reader.returned:
        return reader.store(data, var.name, dtype_of(var), channels_last=True)
    output = Value(var.name, shape_of(var), data.dtype, data.scale, data.zero_point)
    reader.transposed[output] = data
    return reader.add("flatten", [data], output, call=call, reason="permute_dims of a feature map")


@reads("add")
def add(reader: Reader, var, call) -> Value:
    """Bias (constant operand) or residual add (two activations of one shape)."""
    shape = shape_of(var)
    output = float_output(var)
    arrays = [_constant(reader, arg) for arg in call.args]
    constant = next((array for array in arrays if array is not None), None)
    if constant is None:
        a, b = (reader.value(arg) for arg in call.args)
        if a.shape != b.shape:
            raise Unsupported(f"add of {a.shape} and {b.shape} broadcasts")
        return reader.add("add", [a, b], output)
    data = reader.value(call.args[0 if arrays[0] is None else 1])
    channel_axis = constant.ndim - (len(shape) - 1)
    if constant.size != shape[1] or constant.shape[channel_axis:][:1] != (shape[1],):
        raise Unsupported(f"add of a constant of shape {constant.shape}")
    fields = {"bias": constant.reshape(-1).astype(np.float64), "call": call}
    known = reader.lookup(call.args[1 if arrays[0] is None else 0])
    if isinstance(known, QuantizedConstant) and not known.zero_point.any():
        fields["integer_bias"] = known.array.reshape(-1).astype(np.float64), known.scale.reshape(-1)
    return reader.add("bias_add", [data], output, **fields)


def _constant(reader: Reader, expression) -> np.ndarray | None:
    """A constant operand as floats, dequantized if it is one of integers."""
    known = reader.lookup(expression)
    return known.dequantized if isinstance(known, QuantizedConstant) else reader.array(expression)


@reads("nn.relu", "clip", "nn.relu6")
def clip(reader: Reader, var, call) -> Value:
    """ReLU, ReLU6 and clip."""
    data = reader.value(call.args[0])
    bounds = {"relax.nn.relu": (0.0, np.inf), "relax.nn.relu6": (0.0, 6.0)}.get(call.op.name)
    if bounds is None:
        bounds = tuple(float(arg.value) for arg in call.args[1:3])
    return reader.add("clip", [data], float_output(var), clip=bounds)


@reads("multiply")
def multiply(reader: Reader, var, call) -> Value:
    """A product of two activations, the second maybe one pixel that all share.

    Of a layer's sum that came as int32 from another part of the network, the sum itself.
    """
    value = read_sum(call, reader.bound.get)
    if value is not None:
        return reader.value(value)
    a, b = (reader.value(arg) for arg in call.args)
    shape = shape_of(var)
    if a.shape != shape:
        a, b = b, a
    if a.shape != shape or b.shape not in (shape, (*shape[:2], 1, 1)):
        raise Unsupported(f"multiply of {a.shape} and {b.shape} broadcasts")
    return reader.add("mul", [a, b], float_output(var))


@reads("nn.softmax")
def softmax(reader: Reader, var, call) -> Value:
    """Softmax of a quantized vector."""
    data = reader.value(call.args[0], rank=2)
    if data.dtype != "uint8" or int(call.attrs["axis"]) % 2 != 1:
        raise Unsupported("softmax of something else than quantized vectors")
    return reader.add("softmax", [data], float_output(var))


@reads("concat")
def concat(reader: Reader, var, call) -> Value:
    """Concatenation along the channels."""
    fields = reader.lookup(call.args[0])
    values = [reader.value(field, rank=4) for field in fields]
    if int(call.attrs["axis"]) % 4 != 1:
        raise Unsupported(f"concat along axis {call.attrs['axis']}")
    return reader.add("concat", values, float_output(var))


@reads("astype")
def astype(reader: Reader, var, call) -> Value:
    """Casts between float32 and float16, where there are kernels for both; see `Reader`."""
    data, dtype = reader.value(call.args[0]), dtype_of(var)
    if not reader.half or not {data.dtype, dtype} <= set(FLOATS):
        raise Unsupported(f"astype from {data.dtype} to {dtype}")
    if dtype in (FLOATS[0], data.dtype):
        return data
    if data in reader.flattened:
        return _flattened_cast(reader, var, reader.defined_by[data])
    return reader.add("cast", [data], float_output(var))


def _flattened_cast(reader: Reader, var, view: Node) -> Value:
    """The cast of a flattened feature map as the feature map's, flattened: for dense layers."""
    image = Value(f"{var.name}_image", view.inputs[0].shape, dtype_of(var))
    output = float_output(var)
    reader.flattened.add(output)
    cast = reader.add("cast", view.inputs, image)
    return reader.add("flatten", [cast], output, call=view.call, reason=view.reason)


@reads("quantize")
def quantize(reader: Reader, var, call) -> Value:
    """Quantize an activation per tensor; the same parameters twice are one."""
    scale, zero_point = (reader.array(arg) for arg in call.args[1:3])
    dtype = str(call.attrs["out_dtype"])
    if scale is None or zero_point is None or scale.size != 1:
        raise Unsupported("quantize with scales for each channel of an activation")
    if dtype not in ("int8", "uint8", "int16"):
        raise Unsupported(f"quantize to {dtype}")
    stored = int(zero_point.reshape(())) + (128 if dtype == "int8" else 0)
    if dtype == "int16" and stored:
        raise Unsupported("quantize to int16 with a zero point")
    kept = "int16" if dtype == "int16" else "uint8"
    data, rounding = _before_quantize(reader, call.args[0], float(scale.reshape(())))
    if data.dtype == "float16":
        raise Unsupported("quantize of float16")
    output = Value(var.name, data.shape, kept, float(scale.reshape(())), stored)
    output.rounding, output.signed = rounding, dtype == "int8"
    if data.same_steps(output):
        return data
    table = _table(reader, call.args[0], data, output)
    return reader.add("quantize", [data], output) if table is None else table


def _table(reader: Reader, expression, data: Value, output: Value) -> Value | None:
    """The function that operators no kernel knows compute of one activation, as a table."""
    producer = reader.defined_by.get(data)
    if producer is None or producer.op != "tvm":
        return None
    half_away = reader.requantize == TFLITE
    found = function_table(expression, output, reader.known, reader.bound, half_away)
    if found is None:
        return None
    source, table = found
    return reader.add("table", [source], output, table=table)


def _before_quantize(reader: Reader, expression, scale: float) -> tuple[Value, str]:
    """What is quantized and how it is rounded, past the operators that say the latter."""
    found = read_rounding(expression, scale, reader.bound.get)
    if found is None:
        return reader.value(expression), TO_EVEN
    data = reader.value(found.source)
    if found.clip is not None:
        output = Value(f"{data.name}_clip", data.shape)
        data = reader.add("clip", [data], output, clip=found.clip)
    return data, found.rounding


@reads("dequantize")
def dequantize(reader: Reader, var, call):
    """Dequantize: of an activation nothing (its Value knows its scale), of a constant weights."""
    known = reader.lookup(call.args[0])
    if isinstance(known, Value):
        if known.is_quantized:
            return known
        if _is_callers(reader, known):
            return _load(reader, var, call, known)
        return _narrow(reader, var, call, known)
    array, scale, zero_point = (reader.array(arg) for arg in call.args[:3])
    if array is None or scale is None or zero_point is None:
        raise Unsupported("dequantize of a constant by a scale or zero point that is computed")
    if str(array.dtype) not in CONSTANTS or (array.dtype.itemsize > 1 and zero_point.any()):
        raise Unsupported(
            "dequantize of weights that are not int8, uint8, or int16 with zero points of 0"
        )
    axis = int(call.attrs["axis"])
    return QuantizedConstant(array, scale.astype(np.float64), axis, zero_point)


def _is_callers(reader: Reader, value: Value) -> bool:
    producer = reader.defined_by.get(value)
    is_input = value in reader.inputs or (producer is not None and producer.op == "view")
    return is_input and value.dtype in ("int8", "uint8") and len(value.shape) in (2, 4)


def _load(reader: Reader, var, call, integers: Value) -> Value:
    """Dequantize of an input: how its integers are meant."""
    scale, zero_point = (reader.array(arg) for arg in call.args[1:3])
    if scale is None or zero_point is None or max(scale.size, zero_point.size) > 1:
        raise Unsupported("dequantize of an input with scales for each channel")
    integers.scale, integers.zero_point = float(scale.reshape(())), int(zero_point.reshape(()))
    stored = integers.zero_point + (128 if integers.dtype == "int8" else 0)
    output = Value(var.name, integers.shape, "uint8", integers.scale, stored)
    output.signed = integers.dtype == "int8"
    return reader.add("load", [integers], output)


def _narrow(reader: Reader, var, call, integers: Value) -> Value:
    """Dequantize of a quantize with one scale a channel: a layer's sum with fewer bits.

    The quantize was left to TVM, and stays there unless a convolution takes both in.
    """
    quantize = reader.defined_by.get(integers)
    made_here = quantize is not None and getattr(quantize.call, "op", None) == QUANTIZE
    bits = BITS.get(str(quantize.call.attrs["out_dtype"])) if made_here else None
    if bits is None:
        raise Unsupported(f"dequantize of {integers.dtype} that no quantize here made")
    parameters = [reader.array(arg) for arg in (*quantize.call.args[1:3], *call.args[1:3])]
    axes = {int(each.attrs["axis"]) % len(integers.shape) for each in (quantize.call, call)}
    if any(array is None or array.ndim != 1 for array in parameters) or axes != {1}:
        raise Unsupported("dequantize with scales of another form than one for each channel")
    scale, zero_point, scale_again, zero_point_again = parameters
    if zero_point.any() or zero_point_again.any() or not np.array_equal(scale, scale_again):
        raise Unsupported(
            "dequantize with other scales than the quantize before it, or zero points"
        )
    output = float_output(var)
    left = Node("tvm", [integers], output, var.name, call=call, reason="saturates no layer's sum")
    fields = {"narrow": bits, "steps": scale.astype(np.float64), "calls": (quantize, left)}
    return reader.add("narrow", quantize.inputs, output, **fields)
