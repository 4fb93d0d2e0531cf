"""Four ways of rounding, bit for bit, on values half of which lie between two integers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from relaxquant.kernels import convert, elementwise, pool2d
from relaxquant.kernels.convert import ConvertSpec
from relaxquant.kernels.elementwise import AddSpec
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.pool2d import PoolSpec
from relaxquant.kernels.registry import rows_of
from relaxquant.kernels.rounding import ROUNDINGS
from relaxquant.kernels.spec import TensorSpec, Window
from tests.kernels import reference
from tests.kernels.harness import (
    TARGETS,
    build,
    conv_layer,
    run,
    run_layer,
    stored_values,
    target_of,
    to_memory,
)

EDGES = (0.5, 1.5, 2.5, 0.49999997, 0.50000006, 1.0, 0.0, 126.5, 126.49999)
ROUNDING = pytest.mark.parametrize("rounding", ROUNDINGS)
TARGET = pytest.mark.parametrize("target", TARGETS)


@TARGET
@ROUNDING
@pytest.mark.parametrize(
    "block_in, block_out, width", [(16, 16, 3), (1, 16, 3), (1, 4, 20)], ids=str
)
def test_quantize(rounding, target, block_in, block_out, width):
    data = TensorSpec(3, 2, width, "float32", block_in)
    out = TensorSpec(3, 2, width, "uint8", block_out, zero_point=128, rounding=rounding)
    values = np.resize(np.float32([*EDGES, *(-np.float32(EDGES))]), (1, 3, 2, width))
    machine = target_of(target)
    library = build(convert.build(ConvertSpec(1, data, out), instruction_set(machine)), machine)
    bounds = np.array([-128, 127, 1], np.float32)
    expected = reference.from_float(values, -128, 127, out)
    np.testing.assert_array_equal(run(library, [to_memory(values, data), bounds], out), expected)
    other = {"UPWARD": "DOWN", "DOWN": "UPWARD", "TONEAREST": "TOEVEN", "TOEVEN": "TONEAREST"}
    differs = replace(out, rounding=other[rounding])
    assert (expected != reference.from_float(values, -128, 127, differs)).any()


def halves(layer):
    """The layer with multipliers and residual in quarters: values between integers abound."""
    weights = layer.weights
    multiplier = np.exp2(np.rint(np.log2(weights.multiplier))).astype(np.float32)
    return replace(layer, weights=replace(weights, multiplier=multiplier, residual_scale=0.25))


@ROUNDING
@pytest.mark.parametrize(
    "schedule", ["nchw_spatial_pack", "nchw_simd", "nchw_winograd_int", "reference"]
)
def test_convolution(rounding, schedule):
    layer = conv_layer(
        channels=32,
        out_channels=32,
        size=(8, 8),
        padding=(1, 1, 1, 1),
        out_zero_point=100,
        residual="uint8",
        residual_zero_point=7,
        weight_max=15,
        rounding=rounding,
    )
    layer = halves(layer)
    rule = rows_of(schedule, "int8")[-1].rule
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data, layer.residual)
    np.testing.assert_array_equal(run_layer(layer, "native", rule), expected)
    plain = replace(layer.spec, out=replace(layer.spec.out, rounding="TOEVEN"))
    if rounding != "TOEVEN":
        nearest = reference.conv2d_int8(plain, layer.weights, layer.data, layer.residual)
        assert (expected != nearest).any()


@ROUNDING
def test_average_and_addition(rounding):
    machine, rng = target_of("native"), np.random.default_rng(0)
    isa = instruction_set(machine)
    data = TensorSpec(20, 6, 6, "uint8", zero_point=9)
    out = TensorSpec(20, 3, 3, "uint8", zero_point=30, rounding=rounding)
    x, y = (stored_values(rng, data, 1) for _ in range(2))
    spec = PoolSpec("avg", 1, data, out, Window((2, 2), (2, 2)))
    library = build(pool2d.build(spec, isa), machine)
    parameters = pool2d.pool_parameters(spec, 1.0, -30, 225)
    actual = run(library, [to_memory(x, data), *parameters], out)
    np.testing.assert_array_equal(actual, reference.avg_pool(spec, x, 1.0, -30, 225))
    spec = AddSpec(1, data, data, replace(data, zero_point=30, rounding=rounding))
    library = build(elementwise.build_add(spec, isa), machine)
    scales = [0.5, 0.25]
    bounds = elementwise.scales_and_bounds(scales, -30, 225)
    actual = run(library, [to_memory(x, data), to_memory(y, data), bounds], spec.out)
    np.testing.assert_array_equal(actual, reference.add(spec, x, y, scales, -30, 225))
