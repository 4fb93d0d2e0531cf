"""Dense layers on several images: the images of a batch as the pixels of a row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels import dense_nchw_spatial_pack as dense
from relaxquant.kernels import implement_conv2d
from relaxquant.kernels.intrinsics import instruction_set
from tests.kernels import reference
from tests.kernels.harness import RUNNABLE, conv_layer, examples, run_layer, target_of

DENSE = {"size": (1, 1), "kernel": (1, 1)}


@given(
    batch=st.integers(2, 19),
    channels=st.sampled_from([3, 16, 40, 64]),
    out_channels=st.sampled_from([1, 16, 48, 80]),
    zero_point=st.sampled_from([0, 9, 255]),
    weight_max=st.sampled_from([64, 127]),
    residual=st.sampled_from([None, "uint8", "float32"]),
    clip=st.booleans(),
    out_dtype=st.sampled_from(["uint8", "float32"]),
    target=st.sampled_from(RUNNABLE),
)
@examples(25)
def test_int8_bit_for_bit(target, **layer):
    built = conv_layer(**DENSE, **layer)
    expected = reference.conv2d_int8(built.spec, built.weights, built.data, built.residual)
    np.testing.assert_array_equal(run_layer(built, target, dense.dense_spatial_pack), expected)


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("batch", [2, 9, 64])
def test_fp32(target, batch):
    layer = conv_layer(
        **DENSE, batch=batch, channels=48, out_channels=70, dtype="float32", out_dtype="float32"
    )
    weight = layer.weights.weight[:, :, 0, 0].astype(np.float64)
    expected = layer.data[:, :, 0, 0] @ weight.T + layer.weights.bias
    actual = run_layer(layer, target, dense.dense_spatial_pack)[:, :, 0, 0]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layer, kernel",
    [
        ({"batch": 8}, "dense"),
        ({"batch": 1}, "direct"),
        ({"batch": 8, "symbolic": True}, "direct"),
        ({"batch": 8, "size": (2, 1)}, "direct"),
    ],
)
def test_which_layers_it_takes(layer, kernel):
    built = conv_layer(**(DENSE | layer))
    isa = instruction_set(target_of("native"))
    assert implement_conv2d(built.spec, built.weights, isa).key[0] == kernel
