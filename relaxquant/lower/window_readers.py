"""The readers of operators that look at windows of an image, convolutions aside; see `read`."""

from __future__ import annotations

from ..kernels.spec import Window
from .graph import Value
from .read import Reader, Unsupported, float_output, reads, shape_of, window_of

RESIZE_MODES = ("asymmetric", "half_pixel", "align_corners")


@reads("nn.max_pool2d")
def max_pool2d(reader: Reader, var, call) -> Value:
    """Max pooling, which keeps its input's scale: the largest step is the largest value."""
    data = _nchw(reader, call)
    window = window_of(call, [int(k) for k in call.attrs["pool_size"]], data, shape_of(var))
    output = Value(var.name, shape_of(var), data.dtype, data.scale, data.zero_point)
    return reader.add("max_pool2d", [data], output, window=window)


@reads("nn.avg_pool2d")
def avg_pool2d(reader: Reader, var, call) -> Value:
    """Average pooling with a window."""
    data = _nchw(reader, call)
    attrs = call.attrs
    window = window_of(call, [int(k) for k in attrs["pool_size"]], data, shape_of(var))
    include = bool(attrs["count_include_pad"])
    if include and window.padding != tuple(int(p) for p in attrs["padding"]):
        raise Unsupported("avg_pool2d with both ceil_mode and count_include_pad")
    return _average(reader, var, data, window, count_include_pad=include)


@reads("nn.adaptive_avg_pool2d")
def adaptive_avg_pool2d(reader: Reader, var, call) -> Value:
    """Adaptive average pooling where the output size divides the input's."""
    data = _nchw(reader, call)
    shape = shape_of(var)
    (height, width), (rows, columns) = data.shape[2:], shape[2:]
    if height % rows or width % columns:
        raise Unsupported(f"adaptive_avg_pool2d from {data.shape} to {shape}")
    kernel = (height // rows, width // columns)
    window = Window(kernel, strides=kernel)
    return _average(reader, var, data, window)


@reads("mean")
def mean(reader: Reader, var, call) -> Value:
    """Mean over height and width: global average pooling."""
    data = reader.value(call.args[0], rank=4)
    axes = sorted(int(axis) % 4 for axis in call.attrs["axis"] or range(4))
    if axes != [2, 3]:
        raise Unsupported(f"mean over axes {axes}")
    return _average(reader, var, data, Window(data.shape[2:]), mean=True)


@reads("nn.pad")
def pad(reader: Reader, var, call) -> Value:
    """Zeros around an image; convolutions take them in."""
    data = reader.value(call.args[0], rank=4)
    widths = [int(width) for width in call.attrs["pad_width"]]
    zeros = str(call.attrs["pad_mode"]) == "constant" and float(call.attrs["pad_value"]) == 0
    if not zeros or any(widths[:4]):
        raise Unsupported("pad of something else than zeros around an image")
    top, bottom, left, right = widths[4:]
    output = _same_steps(var, data)
    return reader.add("pad", [data], output, window=Window(padding=(top, left, bottom, right)))


@reads("image.resize2d")
def resize2d(reader: Reader, var, call) -> Value:
    """Resizing of a quantized image, as TFLite does it."""
    data = reader.value(call.args[0], rank=4)
    attrs = call.attrs
    method, mode = str(attrs["method"]), str(attrs["coordinate_transformation_mode"])
    known = method in ("linear", "nearest_neighbor") and mode in RESIZE_MODES
    if data.dtype != "uint8" or attrs["layout"] != "NCHW" or not known:
        raise Unsupported(f"resize2d by {method}, {mode}, of {data.dtype} in {attrs['layout']}")
    return reader.add("resize", [data], _same_steps(var, data), resize=(method == "linear", mode))


def _same_steps(var, data: Value) -> Value:
    """The output of an operator that keeps values as they are stored."""
    output = Value(var.name, shape_of(var), data.dtype, data.scale, data.zero_point)
    output.signed = data.signed
    return output


def _average(reader: Reader, var, data: Value, window: Window, **fields) -> Value:
    taps = window.kernel[0] * window.kernel[1]
    if data.dtype == "int16" and taps >= 1 << 16:
        raise Unsupported(f"the sum of {taps} int16 may need more than int32")
    return reader.add("avg_pool2d", [data], float_output(var), window=window, **fields)


def _nchw(reader: Reader, call) -> Value:
    if call.attrs["layout"] != "NCHW":
        raise Unsupported(f"{call.op.name} in {call.attrs['layout']}")
    is_average = call.op.name == "relax.nn.avg_pool2d"  # adaptive ones have no dilation
    if is_average and any(int(d) != 1 for d in call.attrs["dilation"]):
        raise Unsupported("avg_pool2d with dilation")
    return reader.value(call.args[0], rank=4)
