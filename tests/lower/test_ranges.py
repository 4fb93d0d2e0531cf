"""What the lowering knows of the values of quantized activations."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op as R

from relaxquant.lower import conv_layers


def network(high: float | None, zero_point: int = 0, pool: bool = False):
    """clip -> quantize -> (pool) -> conv2d, scale 0.5."""
    bb = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 16, 6, 6), "float32"))
    scale, zero = relax.const(np.float32(0.5)), relax.const(np.uint8(zero_point))
    weight = relax.const(np.ones((16, 16, 3, 3), np.int8))
    zeros = relax.const(np.zeros(16, np.int8))
    with bb.function("main", [x]):
        with bb.dataflow():
            y = x if high is None else bb.emit(R.clip(x, -0.5 * zero_point, high))
            q = bb.emit(R.quantize(y, scale, zero, out_dtype="uint8"))
            d = bb.emit(R.dequantize(q, scale, zero))
            d = bb.emit(R.nn.max_pool2d(d, (2, 2))) if pool else d
            w = bb.emit(R.dequantize(weight, relax.const(np.ones(16, np.float32)), zeros, axis=0))
            y = bb.emit_output(R.nn.conv2d(d, w))
        bb.emit_func_output(y)
    return bb.get()


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize(
    ("high", "zero_point", "largest"),
    [
        (None, 0, 255),
        (7.5, 0, 15),
        (7.74, 0, 15),
        (7.76, 0, 16),
        (3.5, 8, 15),
        (1e9, 0, 255),
        (-9.0, 200, 200),  # padding is the zero point, above all values of the tensor
    ],
)
def test_a_clip_bounds_the_stored_values(high, zero_point, largest, pool):
    (layer,) = conv_layers(network(high, zero_point, pool))
    assert layer.spec.data.largest == largest
