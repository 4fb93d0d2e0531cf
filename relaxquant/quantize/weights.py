"""Weights to symmetric integers: the levels of a bit width, their scale, and rounding to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .checks import QuantizeError
from .clipping import least_error_scale
from .config import QConfig
from .scales import MIN_SCALE, power_of_two_above, scale_of

BIAS_LIMIT = 2**30
"""Largest int32 bias, leaving as much again for the sum of products."""


@dataclass(frozen=True)
class Levels:
    """The integers that weights may be: all from `lowest` to `highest`, or without 0.

    Parameters
    ----------
    lowest, highest : int
        The ends.
    zero : bool
        Whether 0 is one of them; not so for one bit, which is -1 and 1.
    dtype : str
        The type that stores them: ``"int8"`` or ``"int16"``.
    """

    lowest: int
    highest: int
    zero: bool = True
    dtype: str = "int8"


def weight_levels(config: QConfig) -> Levels:
    """The levels that `nbit_weight`, `ternary`, `reduce_range` and `dtype_weight` ask for.

    One bit is -1 and 1; two are -2 to 1, or -1 to 1 if ternary; more are symmetric.
    """
    smallest = "int8" if config.nbit_weight <= 8 else "int16"
    dtype = smallest if config.dtype_weight == "auto" else config.dtype_weight
    if config.nbit_weight == 1:
        return Levels(-1, 1, zero=False, dtype=dtype)
    if config.nbit_weight == 2:
        return Levels(-1 if config.ternary else -2, 1, dtype=dtype)
    return Levels(-config.weight_qmax, config.weight_qmax, dtype=dtype)


def quantize_weight(
    weight: np.ndarray,
    axis: int | None,
    levels: Levels,
    smallest_scale: np.ndarray | float = 0.0,
    method: str = "max",
    importance: np.ndarray | float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the scales of weights and round them.

    Parameters
    ----------
    weight : numpy.ndarray
        float32, any shape.
    axis : int, optional
        Output-channel axis for a scale of each channel; None for one scale.
    levels : Levels
        The integers they may become.
    smallest_scale : float or numpy.ndarray
        Lower bound of the scale, one or one for each channel; see `bias_safe_scale`.
    method : str
        As `QConfig.weight_scale`.
    importance : numpy.ndarray or float
        For ``"mse"``: what each weight's squared error counts, broadcast to `weight`.

    Returns
    -------
    quantized : numpy.ndarray
        int8 or int16, same shape.
    scale : numpy.ndarray
        float32, shape (channels,) or (); positive and finite for channels of zeros too.

    Raises
    ------
    QuantizeError
        If a weight is NaN or infinite.
    """
    if not np.isfinite(weight).all():
        raise QuantizeError("weights hold NaN or infinity")
    scale = weight_scales(weight, axis, levels)
    if method == "mse" and levels.zero:
        scale = _least_error_scales(weight, axis, levels, scale, importance)
    smallest = np.max(smallest_scale) if axis is None else smallest_scale
    scale = np.maximum(scale, np.float32(smallest))
    if method == "power2":
        scale = power_of_two_above(scale)
    return round_to_levels(weight, scale, axis, levels), scale


def weight_scales(weight: np.ndarray, axis: int | None, levels: Levels) -> np.ndarray:
    """The smallest scales that clip no weight, before any lower bound.

    For one bit it is the mean magnitude, which leaves the least squared error (Rastegari et al.,
    "XNOR-Net", ECCV 2016), whatever the method. Arguments and result as `quantize_weight`.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    if not levels.zero:
        # A dead channel must not become plus or minus something.
        return np.maximum(np.abs(weight).mean(axis=others, dtype=np.float64), MIN_SCALE).astype(
            np.float32
        )
    above = weight.max(axis=others, initial=0).astype(np.float64) / levels.highest
    below = weight.min(axis=others, initial=0).astype(np.float64) / levels.lowest
    return scale_of(np.maximum(above, below), 1)


def _least_error_scales(
    weight: np.ndarray,
    axis: int | None,
    levels: Levels,
    widest: np.ndarray,
    importance: np.ndarray | float,
) -> np.ndarray:
    """Scales for ``"mse"``: see `clipping.least_error_scale`."""
    channels = (1, -1) if axis is None else (weight.shape[axis], -1)

    def rows(array: np.ndarray) -> np.ndarray:
        return (array if axis is None else np.moveaxis(array, axis, 0)).reshape(channels)

    def rounding(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return round_to_levels(values, scale, 0, levels)

    spread = np.broadcast_to(np.float32(importance), weight.shape)
    found = least_error_scale(rows(weight), widest.reshape(-1), rounding, rows(spread))
    return found.reshape(widest.shape)


def round_to_levels(
    weight: np.ndarray, scale: np.ndarray, axis: int | None, levels: Levels
) -> np.ndarray:
    """The nearest level of each weight, ties to even; int8 or int16, same shape."""
    if not levels.zero:
        return np.where(weight < 0, levels.lowest, levels.highest).astype(levels.dtype)
    steps = np.rint(weight / along(scale, axis, weight.ndim))
    return np.clip(steps, levels.lowest, levels.highest).astype(levels.dtype)


def along(scale: np.ndarray, axis: int | None, ndim: int) -> np.ndarray:
    """A scale for each index of `axis`, shaped to broadcast over arrays of `ndim` axes."""
    if axis is None:
        return scale
    return np.expand_dims(scale, tuple(i for i in range(ndim) if i != axis))


def bias_safe_scale(bias: np.ndarray, data_scale: float) -> np.ndarray:
    """The smallest weight scales with which the bias, in accumulator units, fits int32.

    A channel that training has all but switched off has tiny weights but a normal bias, and
    ``bias / (data_scale * weight_scale)`` would overflow. A coarser scale costs nothing there: its
    rounding error is of the order of 1e-3 of the bias at most.

    Parameters
    ----------
    bias : numpy.ndarray
        float32, any shape; flattened.
    data_scale : float
        Scale of the layer's quantized data.

    Returns
    -------
    numpy.ndarray
        float32, one for each element of `bias`.

    Notes
    -----
    The same precaution as ONNX Runtime's ``_adjust_weight_scale_for_int32_bias``
    (``onnxruntime/python/tools/quantization/onnx_quantizer.py``).
    """
    return (np.abs(bias.reshape(-1)) / (BIAS_LIMIT * float(data_scale))).astype(np.float32)
