"""Operators on integers in ONNX graphs, rewritten as floats between quantize and dequantize.

ONNX has two ways to write a quantized network: QDQ, which this library reads, and operators that
take integers with their scales and zero points: those of ONNX itself
(https://onnx.ai/onnx/operators/, ``QLinearConv``, ``QLinearMatMul``) and those that ONNX Runtime
adds in the domain ``com.microsoft``
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md). What the second means
is defined by the first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from ..errors import ModelError
from .onnx_graph import GraphWriter, attributes, describe

WRITERS: dict[str, Callable[[GraphWriter, onnx.NodeProto], None]] = {}
# Operators that move or choose values: on integers as on the floats that these stand for.
MOVING = ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice")
DYNAMIC = ("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul")
DYNAMIC += ("MatMulIntegerToFloat", "DynamicQuantizeLSTM")


def rewrite_qlinear(writer: GraphWriter) -> None:
    """Write every node of the source, those on integers as QDQ.

    Raises
    ------
    ModelError
        For a model that is quantized at run time, and scales that are not constant.
    """
    steps: dict[str, tuple[str, str]] = {}  # integers -> their scale and zero point
    for node in writer.source:
        if node.op_type in DYNAMIC:
            raise ModelError(
                f"{describe(node)} quantizes at run time (dynamic quantization), and only static "
                "scales can be lowered to integers: quantize with calibration data, e.g. "
                "onnxruntime.quantization.quantize_static, or import the float32 model and use "
                "rq.quantize"
            )
        if node.op_type in WRITERS:
            WRITERS[node.op_type](writer, node)
            steps[node.output[0]] = _output_steps(node)
        elif node.op_type == "QuantizeLinear":
            writer.keep(node)
            steps[node.output[0]] = (node.input[1], _optional(node, 2))
        elif node.op_type in MOVING and node.input[0] in steps:
            _between_pair(writer, node, steps[node.input[0]])
            steps[node.output[0]] = steps[node.input[0]]
        else:
            writer.keep(node)


def writes(*operators: str) -> Callable:
    """Register the decorated function as the writer of these operators."""

    def add(function: Callable) -> Callable:
        WRITERS.update(dict.fromkeys(operators, function))
        return function

    return add


@writes("QLinearConv")
def _conv(writer: GraphWriter, node: onnx.NodeProto) -> None:
    x, w, (scale, zero_point) = node.input[:3], node.input[3:6], node.input[6:8]
    inputs = [writer.dequantize(*x), writer.dequantize(*w, axis=0)]
    if bias := _optional(node, 8):
        inputs.append(_bias(writer, bias, x[1], w[1]))
    total = writer.emit("Conv", inputs, writer.fresh(node.output[0]), **attributes(node))
    writer.quantize(total, scale, zero_point, node.output[0])


@writes("QLinearMatMul")
def _matmul(writer: GraphWriter, node: onnx.NodeProto) -> None:
    a, b, (scale, zero_point) = node.input[:3], node.input[3:6], node.input[6:8]
    rank = len(_shape(writer, b[0]) or (0, 0))
    inputs = [writer.dequantize(*a), writer.dequantize(*b, axis=rank - 1)]
    total = writer.emit("MatMul", inputs, writer.fresh(node.output[0]))
    writer.quantize(total, scale, zero_point, node.output[0])


@writes("QGemm")
def _gemm(writer: GraphWriter, node: onnx.NodeProto) -> None:
    a, b, given = node.input[:3], node.input[3:6], attributes(node)
    axis = 0 if given.get("transB") else 1
    inputs = [writer.dequantize(*a), writer.dequantize(*b, axis=axis)]
    if bias := _optional(node, 6):
        # The accumulator starts from the bias, and alpha multiplies the accumulator.
        inputs.append(_bias(writer, bias, a[1], b[1], given.get("alpha", 1.0)))
    scale, zero_point = _optional(node, 7), _optional(node, 8)
    total = writer.fresh(node.output[0]) if scale else node.output[0]
    writer.emit("Gemm", inputs, total, **given)
    if scale:
        writer.quantize(total, scale, zero_point, node.output[0])


@writes("QLinearAdd", "QLinearMul")
def _binary(writer: GraphWriter, node: onnx.NodeProto) -> None:
    a, b, (scale, zero_point) = node.input[:3], node.input[3:6], (node.input[6], _optional(node, 7))
    inputs = [writer.dequantize(*a), writer.dequantize(*b)]
    total = writer.emit(_float_name(node), inputs, writer.fresh(node.output[0]))
    writer.quantize(total, scale, zero_point, node.output[0])


@writes("QLinearSigmoid", "QLinearLeakyRelu", "QLinearAveragePool", "QLinearGlobalAveragePool")
def _unary(writer: GraphWriter, node: onnx.NodeProto) -> None:
    given = attributes(node)
    if given.pop("channels_last", 0):
        raise ModelError(
            f"{describe(node)} has its channels last, which ONNX Runtime's own optimizer writes: "
            "import the model as it was before that optimization"
        )
    data = writer.dequantize(*node.input[:3])
    total = writer.emit(_float_name(node), [data], writer.fresh(node.output[0]), **given)
    writer.quantize(total, node.input[3], _optional(node, 4), node.output[0])


@writes("QLinearSoftmax")
def _softmax(writer: GraphWriter, node: onnx.NodeProto) -> None:
    given = attributes(node)
    axis = given.get("axis", -1)
    if given["opset"] < 13 and axis != -1:
        raise ModelError(
            f"{describe(node)} is a softmax over all axes from {axis} on, as before opset 13: "
            "export the model with a newer opset"
        )
    data = writer.dequantize(*node.input[:3])
    total = writer.emit("Softmax", [data], writer.fresh(node.output[0]), axis=axis)
    writer.quantize(total, node.input[3], _optional(node, 4), node.output[0])


@writes("QLinearConcat")
def _concat(writer: GraphWriter, node: onnx.NodeProto) -> None:
    parts = [node.input[i : i + 3] for i in range(2, len(node.input), 3)]
    inputs = [writer.dequantize(*part) for part in parts]
    total = writer.emit("Concat", inputs, writer.fresh(node.output[0]), **attributes(node))
    writer.quantize(total, node.input[0], node.input[1], node.output[0])


def _float_name(node: onnx.NodeProto) -> str:
    return node.op_type.removeprefix("QLinear")


def _output_steps(node: onnx.NodeProto) -> tuple[str, str]:
    """Names of the scale and zero point of what a rewritten node computes."""
    writer = WRITERS[node.op_type]
    at = {_concat: 0, _unary: 3, _softmax: 3, _gemm: 7}.get(writer, 6)
    return _optional(node, at), _optional(node, at + 1)


def _between_pair(writer: GraphWriter, node: onnx.NodeProto, steps: tuple[str, str]) -> None:
    data = writer.dequantize(node.input[0], *steps)
    moved = writer.fresh(node.output[0])
    writer.emit(node.op_type, [data, *node.input[1:]], moved, **attributes(node))
    writer.quantize(moved, *steps, node.output[0])


def _bias(writer: GraphWriter, bias: str, x_scale: str, w_scale: str, alpha: float = 1.0) -> str:
    """The int32 bias as float32: it counts steps of the accumulator."""
    arrays = [writer.array(name) for name in (bias, x_scale, w_scale)]
    if any(array is None for array in arrays):
        raise ModelError(
            f"the bias {bias!r} or its scales {x_scale!r}, {w_scale!r} are computed at run time: "
            "export the model with constants folded"
        )
    steps, x_unit, w_unit = (array.astype(np.float64) for array in arrays)
    unit = x_unit.reshape(-1) * w_unit.reshape(-1) * alpha
    return writer.constant((steps * unit).astype(np.float32), f"{bias}_float")


def _shape(writer: GraphWriter, name: str) -> tuple[int, ...] | None:
    array = writer.array(name)
    return None if array is None else array.shape


def _optional(node: onnx.NodeProto, index: int) -> str:
    """An input that may be left out: its name, or an empty one."""
    return node.input[index] if index < len(node.input) else ""
