"""TFLite's requantization against its NumPy model: alone over extremes, then in every kernel."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels import fixed_point
from relaxquant.kernels.conv2d_nchw_spatial_pack import spatial_pack
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.registry import SCHEDULES
from relaxquant.kernels.tir import T, arg, lanes_at, prim_func, store
from relaxquant.lower.fixed_point import quantize_multiplier
from tests.kernels import reference
from tests.kernels.harness import (
    RUNNABLE,
    TARGETS,
    build,
    conv_layer,
    examples,
    implement,
    run_implementation,
    run_layer,
    target_of,
)
from tests.kernels.test_conv2d_int8 import direct_channels, epilogues, windows

INT32 = np.iinfo(np.int32)
RNG = np.random.default_rng(0)


def multiplied(x, multiplier, shift, target: str, once=False) -> np.ndarray:
    """`fixed_point.multiply` over flat arrays of whole vectors, right shifts alone if possible."""
    target = target_of(target)
    lanes, count = instruction_set(target).lanes, len(x)

    def body() -> None:
        arrays = [arg(name, (count,), "int32") for name in ("x", "multiplier", "right", "left")]
        output = arg("output", (count,), "int32")
        with T.serial(count // lanes) as i:
            at = lanes_at(i * lanes, lanes)
            vectors = [array[at] for array in arrays[:3]]
            left = arrays[3][at] if shift.max() >= 0 else None
            store(output, [at], fixed_point.multiply(*vectors, lanes, left, once))

    arrays = x, multiplier, np.maximum(-shift, 0) - 1, np.maximum(shift, 0)
    output = tvm.runtime.tensor(np.zeros(count, np.int32))
    arguments = [tvm.runtime.tensor(array.astype(np.int32)) for array in arrays]
    build(prim_func(body), target)["main"](*arguments, output)
    return output.numpy()


def multiplied_at_once(
    x, multiplier, shift, target: str, offset=0, signed=True, once=False
) -> np.ndarray:
    """`fixed_point.multiply_at_once` over flat arrays of whole vectors."""
    target = target_of(target)
    lanes, count = instruction_set(target).lanes, len(x)

    def body() -> None:
        x = arg("x", (count,), "int32")
        pairs = [arg(name, (2, count // 2), "int64") for name in ("multiplier", "rounding")]
        right, output = (arg(name, (count,), "int32") for name in ("right", "output"))
        with T.serial(count // lanes) as i:
            at, half = lanes_at(i * lanes, lanes), lanes_at(i * (lanes // 2), lanes // 2)
            vectors = ([array[k, half] for k in (0, 1)] for array in pairs)
            value = fixed_point.multiply_at_once(x[at], *vectors, right[at], lanes, signed, once)
            store(output, [at], value)

    output = tvm.runtime.tensor(np.zeros(count, np.int32))
    arrays = x, *fixed_point.constants(multiplier, shift, offset, once)
    build(prim_func(body), target)["main"](*map(tvm.runtime.tensor, arrays), output)
    return output.numpy()


def grid(*axes) -> list[np.ndarray]:
    """All combinations, the last ones repeated to fill whole vectors of any size."""
    flat = [np.asarray(a).ravel() for a in np.meshgrid(*axes, indexing="ij")]
    return [np.pad(a, (0, -len(a) % 16), mode="edge").astype(np.int32) for a in flat]


EDGES = [INT32.min, INT32.min + 1, -(2**30), -65537, -3, -2, -1, 0, 1, 2, 3, 2**16, INT32.max]
MULTIPLIERS = [0, 2**30, 2**30 + 1, 1518500250, 2**31 - 1]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shifts", [range(-31, 0), range(-31, 31)])
def test_extremes(shifts, target):
    x = np.concatenate([EDGES, RNG.integers(INT32.min, INT32.max, 40)])
    x, multiplier, shift = grid(x, MULTIPLIERS, shifts)
    expected = reference.multiply_by_quantized_multiplier(x, multiplier, shift)
    np.testing.assert_array_equal(multiplied(x, multiplier, shift, target), expected)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("offset", [0, -128, 255])
def test_extremes_at_once(offset, target):
    x = np.concatenate([EDGES, RNG.integers(INT32.min, INT32.max, 40)])
    x, multiplier, shift = grid(x, MULTIPLIERS, range(-fixed_point.MOST, 0))
    expected = reference.multiply_by_quantized_multiplier(x, multiplier, shift) + offset
    at_once = multiplied_at_once(x, multiplier, shift, target, offset)
    np.testing.assert_array_equal(at_once, expected)
    # Where negative halves may go up, all that is not negative is the same still.
    upward = multiplied_at_once(x, multiplier, shift, target, offset, signed=False)
    np.testing.assert_array_equal(np.maximum(upward, offset), np.maximum(expected, offset))


@pytest.mark.parametrize("target", TARGETS)
def test_extremes_rounded_once(target):
    x = np.concatenate([EDGES, RNG.integers(INT32.min, INT32.max, 40)])
    x, multiplier, shift = grid(x, MULTIPLIERS, range(-fixed_point.MOST, 0))
    expected = reference.multiply_and_round_once(x, multiplier, shift)
    found = multiplied_at_once(x, multiplier, shift, target, -128, once=True)
    np.testing.assert_array_equal(found + 128, expected)
    x, multiplier, shift = grid(x[::97], MULTIPLIERS, range(-31, 30))
    expected = reference.multiply_and_round_once(x, multiplier, shift).astype(np.int32)
    np.testing.assert_array_equal(multiplied(x, multiplier, shift, target, once=True), expected)


def test_shifts_that_are_taken_at_once():
    assert fixed_point.takes_at_once(np.arange(-fixed_point.MOST, 0))
    assert not fixed_point.takes_at_once(np.array([-1, 0]))
    assert not fixed_point.takes_at_once(np.array([-1, -fixed_point.MOST - 1]))


@pytest.mark.parametrize("target", TARGETS)
def test_ties(target):
    """Halves of the first rounding go up, those of the second away from zero."""
    x = np.arange(-40, 40, dtype=np.int32)
    once = multiplied(x, np.full(80, 2**30), np.zeros(80, np.int64), target)  # a half
    np.testing.assert_array_equal(once, np.floor(x / 2 + 0.5))
    # 2**30 and a shift of 1 halve and halve again: four in sixteen meet a tie, some of them two.
    factors = np.full(80, 2**30, np.int32), np.full(80, -1, np.int32)
    twice = multiplied(x, *factors, target)
    np.testing.assert_array_equal(multiplied_at_once(x, *factors, target), twice)
    halves = np.floor(x / 2 + 0.5) / 2
    np.testing.assert_array_equal(twice, np.copysign(np.floor(np.abs(halves) + 0.5), halves))
    assert (twice != np.rint(x / 4)).any(), "rounding once gives something else"
    away = np.copysign(np.floor(np.abs(x) / 4 + 0.5), x)
    np.testing.assert_array_equal(multiplied(x, *factors, target, once=True), away)
    np.testing.assert_array_equal(multiplied_at_once(x, *factors, target, once=True), away)


@given(st.floats(2.0**-40, 2.0**30))
def test_multipliers_are_the_nearest_of_31_bits(factor):
    multiplier, shift = (int(part) for part in quantize_multiplier(factor))
    if factor < 2.0**-32:
        assert (multiplier, shift) == (0, 0)
        return
    assert 2**30 <= multiplier < 2**31
    unit = Fraction(2) ** (shift - 31)
    assert abs(multiplier * unit - Fraction(factor)) <= unit / 2


def test_multipliers_of_special_factors():
    multiplier, shift = quantize_multiplier(np.array([0, 0.5, 1, 2, 1 - 2.0**-40]))
    assert multiplier.tolist() == [0, 2**30, 2**30, 2**30, 2**30]
    assert shift.tolist() == [0, 0, 1, 2, 1]


LAYERS = {
    "3x3": dict(channels=32, out_channels=32, size=(9, 9), padding=(1, 1, 1, 1), zero_point=9),
    "1x1": dict(channels=40, out_channels=20, kernel=(1, 1), out_zero_point=128, clip=True),
    "nhwc": dict(channels=40, out_channels=20, nhwc=True, out_zero_point=7),
    "depthwise": dict(channels=21, out_channels=21, groups=21, out_zero_point=3),
    "dense": dict(
        batch=3, size=(1, 1), kernel=(1, 1), channels=40, out_channels=10, rounds_once=True
    ),
    "image": dict(channels=3, halo=True, kernel=(7, 7), padding=(3, 3, 3, 3), size=(9, 18)),
    "few bits": dict(channels=32, out_channels=32, weight_max=1, size=(9, 9)),
}


@pytest.mark.parametrize("row", SCHEDULES, ids=lambda row: f"{row.name}-{row.rule.__name__}")
def test_every_schedule(row):
    if "int8" not in row.precisions:
        pytest.skip("computes no int8")
    if "cpu" not in row.machines:
        pytest.skip("runs on GPUs")
    target = target_of("native")
    taken = 0
    for fields in LAYERS.values():
        layer = conv_layer(requantize="tflite", left_shifts=bool(taken % 2), **fields)
        if fields.get("weight_max") == 1:
            spec = replace(layer.spec, data=replace(layer.spec.data, largest=15))
            layer = replace(layer, spec=spec, data=layer.data % 16)
        implementation = implement(layer, instruction_set(target), row.rule)
        if implementation is None:
            continue
        taken += 1
        library = build(implementation.build(), target)
        expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data)
        np.testing.assert_array_equal(run_implementation(library, implementation, layer), expected)
    if not taken:
        pytest.skip("takes none of these layers on this CPU")


ROUNDINGS = st.fixed_dictionaries({"left_shifts": st.booleans(), "rounds_once": st.booleans()})


@given(windows(), direct_channels(), epilogues(), ROUNDINGS, st.sampled_from(RUNNABLE))
@examples(8)
def test_any_direct_layer(window, channels, epilogue, roundings, target):
    fields = epilogue | {"residual": None, "out_dtype": "uint8"}
    layer = conv_layer(requantize="tflite", **roundings, **window, **channels, **fields)
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data)
    np.testing.assert_array_equal(run_layer(layer, target, spatial_pack), expected)


def test_the_two_ways_differ_in_single_bits_only():
    fixed = conv_layer(requantize="tflite", channels=64, size=(20, 20))
    weights = fixed.weights
    scale = (weights.multiplier * 2.0 ** (weights.shift - 31)).astype(np.float32)
    floating = replace(
        fixed,
        spec=replace(fixed.spec, epilogue=replace(fixed.spec.epilogue, requantize="float")),
        weights=replace(weights, multiplier=scale, shift=None),
    )
    results = [run_layer(layer, "native", spatial_pack) for layer in (fixed, floating)]
    difference = np.abs(np.subtract(*results, dtype=np.int32))
    assert difference.max() <= 1 and difference.mean() < 0.02


@pytest.mark.parametrize(("target", "lanes"), [("avx2", 8), ("avx512", 16)])
def test_two_multiplications_a_vector(target, lanes):
    """LLVM sees that both operands fit 32 bits, and neither splits nor extends them."""
    resolved = target_of(target)
    layer = conv_layer(requantize="tflite", kernel=(1, 1), size=(1, 1), out_channels=16)
    implementation = spatial_pack(layer.spec, layer.weights, instruction_set(resolved))
    code = build(implementation.build(), resolved).inspect_source("asm")
    assert code.count("vpmuldq") == 2 * 16 // lanes
    assert "vpmullq" not in code and "vpmovsxdq" not in code
