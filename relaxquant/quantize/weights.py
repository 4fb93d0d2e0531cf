"""Weights to symmetric int8."""

from __future__ import annotations

import numpy as np

from .config import QuantizeError
from .scales import scale_of

BIAS_LIMIT = 2**30
"""Largest int32 bias, leaving as much again for the sum of products."""


def quantize_weight(
    weight: np.ndarray,
    axis: int | None,
    qmax: int,
    smallest_scale: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Round weights to symmetric int8, ties to even.

    Parameters
    ----------
    weight : numpy.ndarray
        float32, any shape.
    axis : int, optional
        Output-channel axis for a scale of each channel; None for one scale.
    qmax : int
        Largest magnitude of a quantized weight: 64 or 127.
    smallest_scale : float or numpy.ndarray
        Lower bound of the scale, one or one for each channel; see `bias_safe_scale`.

    Returns
    -------
    quantized : numpy.ndarray
        int8, same shape, in [-qmax, qmax].
    scale : numpy.ndarray
        float32, shape (channels,) or (). ``max|w| / qmax`` unless `smallest_scale` is larger;
        positive and finite for channels of zeros too.

    Raises
    ------
    QuantizeError
        If a weight is NaN or infinite.
    """
    if not np.isfinite(weight).all():
        raise QuantizeError("weights hold NaN or infinity")
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    scale = scale_of(np.abs(weight).max(axis=others, initial=0), qmax)
    smallest = np.max(smallest_scale) if axis is None else smallest_scale
    scale = np.maximum(scale, np.float32(smallest))
    spread = scale if axis is None else np.expand_dims(scale, others)
    quantized = np.clip(np.rint(weight / spread), -qmax, qmax)
    return quantized.astype(np.int8), scale


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
