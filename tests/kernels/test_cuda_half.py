"""CUDA kernels of float16 against NumPy: bit for bit where sums are exact, else within a bound.

Products of float16 are exact in float32, in which they are summed. Of small integers the sums are
exact too, in whatever order: then the stored float16 is known to the last bit. For other values
there is a bound on what rounding may do; see `most_that_may_differ`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from relaxquant import target as targets
from relaxquant.kernels.conv2d_reference import plain_loops
from relaxquant.kernels.cuda.conv2d_direct import depthwise, in_fp32
from relaxquant.kernels.cuda.conv2d_mma_half import by_half_mma
from relaxquant.kernels.cuda.mma_tile import pack_fragments
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.tile import Tile
from tests.kernels import reference
from tests.kernels.harness import Layer, conv_layer
from tests.kernels.test_cuda import DEPTHWISE, FP32, LAYERS, MACHINES, functions_and_calls, run

HALF = dict(dtype="float16", out_dtype="float16")
EPILOGUES = {
    "residual, clipped": dict(residual="float16", clip=True, batch=2, channels=37),
}
IMAGES = {
    "image of four channels": dict(
        channels=3, block=4, kernel=(7, 7), strides=(2, 2), padding=(3, 3, 3, 3)
    ),
    "groups of whole blocks": dict(channels=64, out_channels=32, groups=2, padding=(1, 1, 1, 1)),
}
ODD_GROUPS = {"groups straddle blocks": dict(channels=20, out_channels=16, groups=2)}


def in_half(layers: dict) -> dict:
    """The same layers in float16, without what only integers have."""
    integers = ("zero_point", "narrow", "rounding")
    return {
        name: HALF | {k: v for k, v in options.items() if k not in integers and v != "uint8"}
        for name, options in layers.items()
    }


def convolved(layer: Layer, data: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The sums of products in float64, without bias."""
    return reference.convolve(
        data.astype(np.float64), weight.astype(np.float64), layer.spec.window, layer.spec.groups
    )


def expected_of(layer: Layer, sums: np.ndarray) -> np.ndarray:
    """What is stored of sums, bias included, that float32 holds exactly."""
    value, spec = sums.astype(np.float32), layer.spec
    np.testing.assert_array_equal(value, sums)
    if layer.residual is not None:
        added = reference.to_float(layer.residual, spec.epilogue.residual)
        value = reference.fused_multiply_add(added, np.float32(layer.weights.residual_scale), value)
    low, high = layer.weights.low, layer.weights.high
    return reference.from_float(value, low, high, spec.out, spec.epilogue.clip)


def of_small_integers(layer: Layer) -> Layer:
    """The layer with data and weights whose sums float32, and now and then float16, holds."""
    rng = np.random.default_rng(1)
    data = rng.integers(-12, 13, layer.data.shape).astype(np.float16)
    weight = rng.integers(-6, 7, layer.weights.weight.shape).astype(np.float16)
    bias = rng.integers(-500, 501, layer.weights.bias.shape).astype(np.float32)
    return replace(layer, data=data, weights=replace(layer.weights, weight=weight, bias=bias))


def most_that_may_differ(layer: Layer, sums: np.ndarray) -> np.ndarray:
    """Bound of the error of an output, elementwise.

    A sum of n terms of magnitudes that sum up to m is wrong by at most n * m * 2 ** -24 where each
    addition rounds to the nearest (Higham, "Accuracy and Stability of Numerical Algorithms",
    section 4.2), and by twice that where it cuts off, as tensor cores may. The products are exact;
    bias and residual are two terms more. Rounding to float16 adds 2 ** -11 of the value, or 2 **
    -25 where it is tiny.
    """
    weights = layer.weights
    magnitude = convolved(layer, np.abs(layer.data), np.abs(weights.weight))
    magnitude += np.abs(weights.bias)[:, None, None]
    if layer.residual is not None:
        magnitude += np.abs(layer.residual * np.float64(weights.residual_scale))
    terms = np.prod(weights.weight.shape[1:]) + 2
    error = terms * magnitude * 2.0**-23
    if layer.spec.out.dtype == "float16":
        error += (np.abs(sums) + error) * 2.0**-11 + 2.0**-25
    return error


def check(machine, layers: dict, rule, arch: str = "sm_80", tile: Tile | None = None) -> None:
    """Outputs are the model's, bit for bit for small integers and within the bound for others."""
    target = targets.resolve(arch)
    isa = instruction_set(target)
    functions, calls = functions_and_calls(layers, rule, isa, tile)
    exact = functions_and_calls(layers, rule, isa, tile, of_small_integers)[1]
    kernels = machine(functions, target)
    for key, (name, layer, arguments) in exact.items():
        bias = layer.weights.bias[:, None, None]
        expected = expected_of(layer, convolved(layer, layer.data, layer.weights.weight) + bias)
        got = run(kernels[key], arguments, layer.spec.out)
        np.testing.assert_array_equal(got, expected, err_msg=name)
    for key, (name, layer, arguments) in calls.items():
        weights = layer.weights
        sums = convolved(layer, layer.data, weights.weight) + weights.bias[:, None, None]
        if layer.residual is not None:
            sums += layer.residual * np.float64(weights.residual_scale)
        wanted = np.clip(sums, weights.low, weights.high)
        got = run(kernels[key], arguments, layer.spec.out).astype(np.float64)
        differs = np.abs(got - wanted) > most_that_may_differ(layer, sums)
        assert not differs.any(), f"{name}: {differs.sum()} of {differs.size}"


@pytest.mark.parametrize("machine", MACHINES)
def test_direct(machine):
    check(machine, in_half(FP32 | LAYERS | EPILOGUES | IMAGES), in_fp32)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("layers", "rule"), [(DEPTHWISE, depthwise), (ODD_GROUPS, plain_loops)])
def test_groups(machine, layers, rule):
    check(machine, in_half(layers), rule, "sm_61")


@pytest.mark.parametrize("machine", MACHINES)
def test_mma(machine):
    check(machine, in_half(LAYERS | EPILOGUES), by_half_mma)


@pytest.mark.parametrize("machine", MACHINES)
def test_tiles_larger_than_small_layers_get(machine):
    layers = {
        "several tiles": dict(size=(9, 11), out_channels=64, channels=32, padding=(1, 1, 1, 1))
    }
    check(machine, in_half(layers), by_half_mma, tile=Tile(vectors=2, pixels=4))


def test_a_threads_two_words_are_neighbours_in_memory():
    spec = conv_layer(channels=32, kernel=(1, 1), **HALF).spec
    weight = np.arange(16 * 32, dtype=np.int64).reshape(16, 32, 1, 1) + 1
    packed = pack_fragments(spec, weight, word=2, side_by_side=True)
    assert packed.shape == (1, 2, 1, 1, 32, 8)
    np.testing.assert_array_equal(np.sort(packed, axis=None), weight.ravel())
    # Thread 5 has column 1 and inputs 4 to 7: of channels 1 and, in the second product, 3.
    np.testing.assert_array_equal(packed[0, 0, 0, 0, 5, :4], weight[1, 4:8, 0, 0])
    np.testing.assert_array_equal(packed[0, 1, 0, 0, 5, 4:], weight[3, 20:24, 0, 0])
