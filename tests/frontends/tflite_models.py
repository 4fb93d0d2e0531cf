"""Small quantized TFLite models, written operator by operator with the builders of `tflite`."""

from __future__ import annotations

from dataclasses import dataclass, field

import flatbuffers
import numpy as np
import tflite

TYPES = {
    "float32": tflite.TensorType.FLOAT32,
    "int32": tflite.TensorType.INT32,
    "uint8": tflite.TensorType.UINT8,
    "int8": tflite.TensorType.INT8,
}
SAME, VALID = tflite.Padding.SAME, tflite.Padding.VALID
NONE, RELU, RELU6 = (getattr(tflite.ActivationFunctionType, a) for a in ("NONE", "RELU", "RELU6"))


@dataclass
class Tensor:
    """A tensor of a model; ``scale`` None is not quantized, ``data`` None is computed."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | np.ndarray | None = None
    zero_point: int | np.ndarray = 0
    data: np.ndarray | None = field(repr=False, default=None)
    axis: int = 0


class Network:
    """Collects tensors and operators; `save` writes the file."""

    def __init__(self, seed: int = 0):
        self.tensors: list[Tensor] = []
        self.operators: list[tuple] = []
        self.inputs: list[int] = []
        self.rng = np.random.default_rng(seed)

    def tensor(self, *arguments, **fields) -> int:
        """Add a tensor and return its index."""
        self.tensors.append(Tensor(*arguments, **fields))
        return len(self.tensors) - 1

    def input(self, shape, dtype="uint8", scale=None, zero_point=0) -> int:
        """Add an input of the model."""
        index = self.tensor(f"input{len(self.inputs)}", tuple(shape), dtype, scale, zero_point)
        self.inputs.append(index)
        return index

    def constant(self, data: np.ndarray, **fields) -> int:
        """Add a constant."""
        name = f"constant{len(self.tensors)}"
        return self.tensor(name, data.shape, str(data.dtype), data=data, **fields)

    def operator(self, code: str, inputs, output: Tensor | tuple, options="", **settings) -> int:
        """Add an operator; ``output`` is (shape, dtype, scale, zero point)."""
        index = self.tensor(f"{code.lower()}/{len(self.operators)}:0", *output)
        self.operators.append((code, list(inputs), [index], options, settings))
        return index

    def conv2d(
        self, x, channels, kernel, out=None, stride=1, padding=SAME, activation=NONE, weights=None,
        depthwise=False, bias=True, bias_size=3000,
    ) -> int:  # fmt: skip
        """A convolution of random weights; dtype is the input's.

        ``out`` is (scale, zero point), by default such that random inputs use most of the range.
        ``weights`` is (dtype, zero point, whether there is a scale for each channel).
        """
        data = self.tensors[x]
        dtype, zero_point, per_channel = weights or (data.dtype, 0, data.dtype == "int8")
        shape = (channels, kernel, kernel, data.shape[3])
        if depthwise:
            shape = (1, kernel, kernel, channels)
        limits = np.iinfo(dtype)
        array = self.rng.integers(max(limits.min, -127), limits.max + 1, shape).astype(dtype)
        scale = np.float32(0.02) / kernel
        if per_channel:
            scale = (self.rng.uniform(0.3, 1, channels) * 0.02 / kernel).astype(np.float32)
        axis = 3 if depthwise and per_channel else 0
        zero = np.zeros(channels, np.int64) if per_channel else zero_point
        inputs = [x, self.constant(array, scale=scale, zero_point=zero, axis=axis)]
        if bias:
            steps = self.rng.integers(-bias_size, bias_size, channels).astype(np.int32)
            unit = (np.float32(data.scale) * scale).astype(np.float32)
            inputs.append(self.constant(steps, scale=unit, zero_point=zero if per_channel else 0))
        if out is None:
            spread = np.sqrt(np.mean((array - np.float64(zero_point)) ** 2) * array.size / channels)
            out = (75 * float(data.scale) * float(np.mean(scale)) * spread / 60, data.zero_point)
        height, width = (_size(data.shape[i], kernel, stride, padding) for i in (1, 2))
        settings = {"Padding": padding, "StrideH": stride, "StrideW": stride}
        settings |= {"DilationHFactor": 1, "DilationWFactor": 1}
        settings["FusedActivationFunction"] = activation
        if depthwise:
            settings["DepthMultiplier"] = channels // data.shape[3]
        return self.operator(
            "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
            inputs,
            ((data.shape[0], height, width, channels), data.dtype, *out),
            "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions",
            **settings,
        )

    def pool(self, kind, x, kernel, stride=1, padding=VALID, activation=NONE) -> int:
        """``AVERAGE`` or ``MAX`` pooling."""
        data = self.tensors[x]
        height, width = (_size(data.shape[i], kernel, stride, padding) for i in (1, 2))
        return self.operator(
            f"{kind}_POOL_2D",
            [x],
            ((data.shape[0], height, width, data.shape[3]), *self.same(x)),
            "Pool2DOptions",
            Padding=padding, StrideH=stride, StrideW=stride, FilterHeight=kernel,
            FilterWidth=kernel, FusedActivationFunction=activation,
        )  # fmt: skip

    def dense(self, x, units, out, weights=None, scale=0.01) -> int:
        """A fully connected layer on (N, features).

        ``out`` and ``weights`` are as of `conv2d`, with one scale for all units.
        """
        data = self.tensors[x]
        dtype, zero_point = weights or (data.dtype, 0)
        limits = np.iinfo(dtype)
        shape = (units, data.shape[1])
        array = self.rng.integers(max(limits.min, -127), limits.max + 1, shape).astype(dtype)
        scale = np.float32(scale)
        steps = self.rng.integers(-3000, 3000, units).astype(np.int32)
        unit = np.float32(data.scale) * scale
        inputs = [
            x,
            self.constant(array, scale=scale, zero_point=zero_point),
            self.constant(steps, scale=unit),
        ]
        return self.operator(
            "FULLY_CONNECTED",
            inputs,
            ((data.shape[0], units), data.dtype, *out),
            "FullyConnectedOptions",
            FusedActivationFunction=NONE,
        )

    def same(self, x) -> tuple:
        """dtype, scale and zero point of a tensor, for an operator that keeps them."""
        return self.tensors[x].dtype, self.tensors[x].scale, self.tensors[x].zero_point

    def save(self, path, outputs: list[int]):
        """Write the model and return the path."""
        path.write_bytes(_serialized(self, outputs))
        return path


def _size(size: int, kernel: int, stride: int, padding: int) -> int:
    return -(-(size if padding == SAME else size - kernel + 1) // stride)


def _serialized(network: Network, outputs: list[int]) -> bytes:
    b = flatbuffers.Builder(1 << 16)
    codes = sorted({code for code, *_ in network.operators})
    buffers = [_table(b, "Buffer")]
    tensors = []
    for tensor in network.tensors:
        buffer = 0
        if tensor.data is not None:
            data = b.CreateNumpyVector(np.frombuffer(tensor.data.tobytes(), np.uint8))
            buffers.append(_table(b, "Buffer", Data=data))
            buffer = len(buffers) - 1
        tensors.append(_tensor(b, tensor, buffer))
    operators = [_operator(b, codes, *operator) for operator in network.operators]
    graph = _table(
        b,
        "SubGraph",
        Tensors=_offsets(b, tensors),
        Inputs=b.CreateNumpyVector(np.array(network.inputs, np.int32)),
        Outputs=b.CreateNumpyVector(np.array(outputs, np.int32)),
        Operators=_offsets(b, operators),
    )
    code_tables = [_code(b, code) for code in codes]
    model = _table(
        b,
        "Model",
        Version=3,
        OperatorCodes=_offsets(b, code_tables),
        Subgraphs=_offsets(b, [graph]),
        Buffers=_offsets(b, buffers),
    )
    b.Finish(model, file_identifier=b"TFL3")
    return bytes(b.Output())


def _code(b, name: str) -> int:
    value = getattr(tflite.BuiltinOperator, name)
    return _table(
        b, "OperatorCode", DeprecatedBuiltinCode=min(value, 127), BuiltinCode=value, Version=1
    )


def _tensor(b, tensor: Tensor, buffer: int) -> int:
    name = b.CreateString(tensor.name)
    shape = b.CreateNumpyVector(np.array(tensor.shape, np.int32))
    fields = {"Shape": shape, "Type": TYPES[tensor.dtype], "Buffer": buffer, "Name": name}
    if tensor.scale is not None:
        scale = np.atleast_1d(np.asarray(tensor.scale, np.float32))
        zero_point = np.atleast_1d(np.asarray(tensor.zero_point, np.int64))
        fields["Quantization"] = _table(
            b,
            "QuantizationParameters",
            Scale=b.CreateNumpyVector(scale),
            ZeroPoint=b.CreateNumpyVector(zero_point),
            QuantizedDimension=tensor.axis,
        )
    return _table(b, "Tensor", **fields)


def _operator(b, codes, code: str, inputs, outputs, options: str, settings: dict) -> int:
    fields = {
        "OpcodeIndex": codes.index(code),
        "Inputs": b.CreateNumpyVector(np.array(inputs, np.int32)),
        "Outputs": b.CreateNumpyVector(np.array(outputs, np.int32)),
    }
    if options:
        values = {
            key: b.CreateNumpyVector(value) if isinstance(value, np.ndarray) else value
            for key, value in settings.items()
        }
        fields["BuiltinOptions"] = _table(b, options, **values)
        fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, options)
    return _table(b, "Operator", **fields)


def _offsets(b, items: list[int]) -> int:
    b.StartVector(4, len(items), 4)
    for item in reversed(items):
        b.PrependUOffsetTRelative(item)
    return b.EndVector()


def _table(b, kind: str, **fields) -> int:
    """A table of the schema; offsets in ``fields`` were made before it."""
    getattr(tflite, f"{kind}Start")(b)
    for name, value in fields.items():
        getattr(tflite, f"{kind}Add{name}")(b, value)
    return getattr(tflite, f"{kind}End")(b)
