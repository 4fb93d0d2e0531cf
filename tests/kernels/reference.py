"""NumPy models of the kernels, on plain NCHW arrays: what they must compute, bit for bit.

Integers are summed exactly, and every float operation is rounded to float32 where a kernel rounds.
Nothing here knows of layouts, tiles or vectors.
"""

from __future__ import annotations

import numpy as np

from relaxquant.kernels.pool2d import PoolSpec
from relaxquant.kernels.spec import ConvSpec, ConvWeights, TensorSpec, Window

INT32 = np.iinfo(np.int32)


def fused_multiply_add(a: np.ndarray, b: np.float32, c: np.ndarray) -> np.ndarray:
    """float32 ``a * b + c`` rounded once.

    The product is exact in float64; the sum is rounded to odd there, after which rounding to
    float32 cannot round twice (Boldo and Melquiond, "Emulation of a FMA and Correctly Rounded Sums:
    Proved Algorithms Using Rounding to Odd", IEEE Transactions on Computers 2008).
    """
    product, c = a.astype(np.float64) * np.float64(b), c.astype(np.float64)
    total = product + c
    rest = total - product
    error = (product - (total - rest)) + (c - rest)
    even = total.view(np.int64) & 1 == 0
    odd = np.nextafter(total, np.copysign(np.inf, error))
    return np.where((error != 0) & even, odd, total).astype(np.float32)


def to_float(stored: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Steps above the zero point for integers, the values themselves for floats; float32."""
    if spec.is_float:
        return stored.astype(np.float32)
    return (stored.astype(np.int32) - spec.zero_point).astype(np.float32)


ROUND = {
    "TOEVEN": np.rint,
    "UPWARD": lambda v: np.floor(v + np.float32(0.5)),
    "TONEAREST": lambda v: np.copysign(np.floor(np.abs(v).astype(np.float64) + 0.5), v),
    "DOWN": np.floor,
}


def from_float(value, low: float, high: float, spec: TensorSpec, clip: bool = True) -> np.ndarray:
    """Clip, round as the tensor says, add the zero point; floats are only clipped, if ``clip``."""
    assert value.dtype == np.float32
    clipped = np.minimum(np.maximum(value, np.float32(low)), np.float32(high))
    if spec.is_float:
        return (clipped if clip else value).astype(spec.dtype)
    steps = ROUND[spec.rounding](clipped).astype(np.int64) + spec.zero_point
    lowest, highest = spec.integers
    inside = steps.min() >= lowest and steps.max() <= highest
    assert inside, f"the bounds must keep the output in {spec.dtype}"
    return steps.astype(spec.dtype)


def window_taps(padded: np.ndarray, window: Window, size: tuple[int, int]):
    """For each tap of the window: (row, column, what it reads for every output pixel)."""
    (stride_h, stride_w), (step_h, step_w) = window.strides, window.dilation
    for kh in range(window.kernel[0]):
        for kw in range(window.kernel[1]):
            rows = slice(kh * step_h, kh * step_h + (size[0] - 1) * stride_h + 1, stride_h)
            columns = slice(kw * step_w, kw * step_w + (size[1] - 1) * stride_w + 1, stride_w)
            yield kh, kw, padded[:, :, rows, columns]


def pad_image(x: np.ndarray, window: Window, value: float = 0) -> np.ndarray:
    """The image with its border added."""
    top, left, bottom, right = window.padding
    border = ((0, 0), (0, 0), (top, bottom), (left, right))
    return np.pad(x, border, constant_values=value)


def convolve(x: np.ndarray, weight: np.ndarray, window: Window, groups: int) -> np.ndarray:
    """Convolution of (N, C, H, W) with (O, C / groups, KH, KW) in the dtype of ``x``."""
    size = window.output_size(*x.shape[2:])
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    total = np.zeros((len(x), groups, outputs, *size), x.dtype)
    for kh, kw, taps in window_taps(pad_image(x, window), window, size):
        grouped = taps.reshape(len(x), groups, inputs, *size)
        tap_weights = weight[:, :, kh, kw].reshape(groups, outputs, inputs).astype(x.dtype)
        total += np.einsum("ngihw,goi->ngohw", grouped, tap_weights)
    return total.reshape(len(x), weight.shape[0], *size)


def accumulate(spec: ConvSpec, weights: ConvWeights, data: np.ndarray) -> np.ndarray:
    """The int32 accumulators of a convolution, bias and zero point included, as int64."""
    steps = data.astype(np.int64) - spec.data.zero_point  # so the border is 0: the zero point
    acc = convolve(steps, weights.centered, spec.window, spec.groups)
    if spec.epilogue.narrow:
        end = 2 ** (spec.epilogue.narrow - 1)
        acc = np.clip(acc, -end, end - 1)
    acc += weights.bias.astype(np.int64)[:, None, None]
    assert acc.min() >= INT32.min and acc.max() <= INT32.max, "the layer overflows int32"
    return acc


def conv2d_int8(
    spec: ConvSpec, weights: ConvWeights, data: np.ndarray, residual: np.ndarray | None = None
) -> np.ndarray:
    """Convolution of uint8 or int16 with its epilogue."""
    acc = accumulate(spec, weights, data)
    if spec.epilogue.requantize == "tflite":
        factors = (array[:, None, None] for array in (weights.multiplier, weights.shift))
        multiplied = (
            multiply_and_round_once
            if spec.epilogue.rounds_once
            else multiply_by_quantized_multiplier
        )
        steps = multiplied(acc, *factors)
        return (np.clip(steps, weights.low, weights.high) + spec.out.zero_point).astype(np.uint8)
    value = acc.astype(np.float32) * weights.multiplier.astype(np.float32)[:, None, None]
    if residual is not None:
        steps = to_float(residual, spec.epilogue.residual)
        value = fused_multiply_add(steps, np.float32(weights.residual_scale), value)
    return from_float(value, weights.low, weights.high, spec.out, spec.epilogue.clip)


def multiply_by_quantized_multiplier(
    x: np.ndarray, multiplier: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """TFLite's function of that name, step by step in int64; ``x`` is int32 in value."""
    multiplier, shift = multiplier.astype(np.int64), shift.astype(np.int64)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    x = (x.astype(np.int64) << left).astype(np.int32).astype(np.int64)
    product = x * multiplier
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    high = np.sign(nudged) * (np.abs(nudged) >> 31)  # division in C goes towards zero
    mask = (1 << right) - 1
    threshold = (mask >> 1) + (high < 0)
    return (high >> right) + ((high & mask) > threshold)


def multiply_and_round_once(x: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The product of LiteRT's dense layers: to the nearest, halves away from zero."""
    product = x.astype(np.int64) * multiplier
    right = 31 - shift.astype(np.int64)
    return np.sign(product) * ((np.abs(product) + (np.int64(1) << (right - 1))) >> right)


def max_pool(spec: PoolSpec, data: np.ndarray) -> np.ndarray:
    """Max pooling; the border is lower than everything."""
    lowest = spec.data.integers[0] if spec.data.integers else -np.inf
    padded = pad_image(data, spec.window, lowest)
    size = spec.window.output_size(*data.shape[2:])
    return np.max([taps for _, _, taps in window_taps(padded, spec.window, size)], axis=0)


def avg_pool(
    spec: PoolSpec, data: np.ndarray, multiplier: float, low: float, high: float
) -> np.ndarray:
    """Average pooling; sums are int32 for integers and float32, tap after tap, for floats."""
    zero_point = spec.data.zero_point
    steps = data.astype(np.int64) - zero_point if spec.data.integers else to_float(data, spec.data)
    size = spec.window.output_size(*data.shape[2:])
    total = np.zeros((*data.shape[:2], *size), steps.dtype)
    for _, _, taps in window_taps(pad_image(steps, spec.window), spec.window, size):
        total = total + taps
    ones = pad_image(np.ones_like(data[:1, :1], dtype=np.int64), spec.window)
    count = sum(taps for _, _, taps in window_taps(ones, spec.window, size))
    if spec.count_include_pad:
        count = np.full_like(count, np.prod(spec.window.kernel))
    scale = np.float32(multiplier) / count.astype(np.float32)
    return from_float(total.astype(np.float32) * scale, low, high, spec.out)


def add(spec, a: np.ndarray, b: np.ndarray, scales: list[float], low, high) -> np.ndarray:
    """Residual add: a product, then a fused multiply-add."""
    value = to_float(a, spec.a) * np.float32(scales[0])
    value = fused_multiply_add(to_float(b, spec.b), np.float32(scales[1]), value)
    return from_float(value, low, high, spec.out)


def concat(spec, inputs: list[np.ndarray], scales: list[float], low, high) -> np.ndarray:
    """Concatenation along the channels, each input rescaled."""
    parts = [
        convert(stored, tensor, spec.out, scale, low, high)
        for stored, tensor, scale in zip(inputs, spec.inputs, scales, strict=True)
    ]
    return np.concatenate(parts, axis=1)


def convert(stored, data: TensorSpec, out: TensorSpec, scale: float, low, high) -> np.ndarray:
    """Quantize, dequantize or requantize: one multiplication, then `from_float`."""
    return from_float(to_float(stored, data) * np.float32(scale), low, high, out)
