"""fp32 convolutions against PyTorch's in float64, within the rounding of float32."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels.conv2d_nchw_spatial_pack import spatial_pack
from relaxquant.kernels.depthwise_nchw_spatial_pack import depthwise_spatial_pack
from tests.kernels.harness import RUNNABLE, Layer, conv_layer, examples, run_layer
from tests.kernels.reference import pad_image, to_float
from tests.kernels.test_conv2d_int8 import (
    DEPTHWISE,
    DIRECT,
    REFERENCE,
    RULES,
    direct_channels,
    draw_tile,
    epilogues,
    windows,
    with_depthwise_groups,
)

torch = pytest.importorskip("torch", reason="the reference for fp32 convolutions is PyTorch")


def convolution(layer: Layer) -> np.ndarray:
    """The layer in PyTorch and float64, its epilogue in NumPy."""
    spec, weights = layer.spec, layer.weights
    total = torch.nn.functional.conv2d(
        torch.from_numpy(pad_image(layer.data.astype(np.float64), spec.window)),
        torch.from_numpy(weights.weight.astype(np.float64)),
        torch.from_numpy(weights.bias.astype(np.float64)),
        stride=spec.window.strides,
        dilation=spec.window.dilation,
        groups=spec.groups,
    ).numpy()
    if layer.residual is not None:
        total = total + to_float(layer.residual, spec.epilogue.residual) * weights.residual_scale
    clipped = np.clip(total, weights.low, weights.high)
    if spec.out.dtype == "uint8":
        return np.rint(clipped) + spec.out.zero_point
    return clipped if spec.epilogue.clip else total


def check(layer: Layer, target: str, rule, tile=None) -> None:
    """Within 1e-4 of the largest output for float32, within one step for uint8."""
    expected = convolution(layer)
    actual = run_layer(layer, target, rule, tile)
    tolerance = 1 if layer.spec.out.dtype == "uint8" else 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(actual.astype(np.float64), expected, rtol=0, atol=tolerance)
    if tolerance == 1:
        assert np.mean(actual != expected) < 0.01 or np.sum(actual != expected) <= 1


def as_fp32(layer: dict) -> dict:
    """The same layer in fp32."""
    return layer | {"dtype": "float32", "out_dtype": layer.get("out_dtype", "float32")}


LAYERS = [
    *[("direct", DIRECT[name], name) for name in DIRECT],
    *[("depthwise", with_depthwise_groups(DEPTHWISE[name]), name) for name in DEPTHWISE],
    *[("reference", REFERENCE[name], name) for name in REFERENCE],
    ("direct", dict(channels=3, block=1, kernel=(5, 5), padding=(2, 2, 2, 2)), "plain image"),
    ("direct", dict(out_dtype="uint8", out_zero_point=128, padding=(1,) * 4), "quantized output"),
    (
        "direct",
        dict(channels=6, out_channels=32, groups=2, block=1, residual="float32"),
        "groups of a plain image",
    ),
]


@pytest.mark.parametrize("target", ["generic", "native"])
@pytest.mark.parametrize("rule, layer, name", LAYERS, ids=[f"{r}-{n}" for r, _, n in LAYERS])
def test_nasty_layers(rule, layer, name, target):
    check(conv_layer(**as_fp32(layer)), target, RULES[rule])


@given(windows(), direct_channels(), epilogues(), st.sampled_from(RUNNABLE), st.data())
@examples(25)
def test_direct(window, channels, epilogue, target, data):
    layer = conv_layer(**window, **channels, **epilogue, dtype="float32")
    check(layer, target, spatial_pack, draw_tile(data.draw, layer, target))


@given(windows(largest=5), st.integers(1, 40), epilogues(), st.sampled_from(RUNNABLE))
@examples(20)
def test_depthwise(window, channels, epilogue, target):
    layer = with_depthwise_groups(window | epilogue | {"channels": channels})
    check(conv_layer(**layer, dtype="float32"), target, depthwise_spatial_pack)
