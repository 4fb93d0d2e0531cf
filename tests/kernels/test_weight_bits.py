"""Packed weights: the fewest bits, the round trip in NumPy, and the code that decodes them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.errors import InputError
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.tir import arg, prim_func
from relaxquant.kernels.weight_bits import (
    bits_of,
    decoded_vectors,
    emit_decode,
    group_size,
    pack,
    stored_vectors,
    unpack,
)
from tests.kernels.harness import RUNNABLE, build, target_of

BITS = range(1, 8)


def random_weights(bits: int, shape: tuple, seed: int = 0) -> np.ndarray:
    """int8 weights over the whole range of n bits."""
    rng = np.random.default_rng(seed)
    if bits == 1:
        return rng.choice(np.array([-1, 1], np.int8), shape)
    return rng.integers(-(1 << bits - 1), 1 << bits - 1, shape).astype(np.int8)


@pytest.mark.parametrize(
    "values, bits",
    [
        ([-1, 1], 1),
        ([1, 1], 1),
        ([-1], 1),
        ([-1, 0, 1], 2),
        ([0, 0], 2),
        ([-2, 1], 2),
        ([-2, 2], 3),
        ([2], 3),
        ([-3, 3], 3),
        ([-4, 3], 3),
        ([-7, 7], 4),
        ([-15, 15], 5),
        ([16], 6),
        ([-64, 63], 7),
        ([64], 8),
        ([-65], 8),
        ([-128, 127], 8),
        ([], 2),
    ],
)
def test_fewest_bits(values, bits):
    assert bits_of(np.array(values, np.int8)) == bits


@pytest.mark.parametrize("bits", BITS)
def test_bits_of_the_whole_range(bits):
    assert bits_of(random_weights(bits, (400,))) == bits


@given(
    st.sampled_from(BITS),
    st.integers(1, 20),
    st.sampled_from([1, 16, 64]),
    st.sampled_from([(), (3,), (2, 3)]),
)
def test_unpack_is_the_inverse_of_pack(bits, count, size, outer):
    vectors = random_weights(bits, (*outer, count, size))
    packed = pack(vectors, bits)
    groups = -(-count // group_size(bits))
    assert packed.dtype == np.uint8
    assert packed.shape == (*outer, groups, stored_vectors(bits), size)
    np.testing.assert_array_equal(unpack(packed, bits, count), vectors)


@pytest.mark.parametrize("bits", BITS)
def test_eight_vectors_take_as_many_as_there_are_bits(bits):
    assert pack(random_weights(bits, (8, 16)), bits).nbytes == bits * 16


@pytest.mark.parametrize("bits", BITS)
def test_weights_beyond_the_range_are_refused(bits):
    too_large = np.full((8, 16), 1 if bits == 2 else 1 << bits - 1, np.int8)
    too_large[0, 0] = {1: 0, 2: 2}.get(bits, 1 << bits - 1)
    with pytest.raises(InputError, match=f"cannot be packed in {bits}$"):
        pack(too_large, bits)


@pytest.mark.parametrize("bits", [0, 8])
def test_only_one_to_seven_bits_are_packed(bits):
    with pytest.raises(InputError, match="1 to 7 bits"):
        pack(np.ones((8, 16), np.int8), bits)


def decoder(count: int, streams: int, bits: int, lanes: int):
    """A PrimFunc that decodes one stream of several."""
    groups = -(-count // group_size(bits))

    def body():
        packed = arg("packed", (streams, groups, stored_vectors(bits), 4 * lanes), "uint8")
        target = arg("target", (decoded_vectors(count, bits) * 4 * lanes,), "int8")
        emit_decode(packed, [1], target, count, bits, lanes)

    return prim_func(body)


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("bits", BITS)
def test_generated_code_decodes(bits, target):
    lanes, count = instruction_set(target_of(target)).lanes, 19
    vectors = random_weights(bits, (3, count, 4 * lanes))
    library = build(decoder(count, 3, bits, lanes), target_of(target))
    out = tvm.runtime.tensor(np.zeros(decoded_vectors(count, bits) * 4 * lanes, np.int8))
    library["main"](tvm.runtime.tensor(pack(vectors, bits)), out)
    decoded = out.numpy().reshape(-1, 4 * lanes)[:count]
    np.testing.assert_array_equal(decoded, vectors[1])


@pytest.mark.parametrize("bits, most", [(1, 3), (4, 3), (7, 9)])
def test_decoding_takes_few_instructions(bits, most):
    """Vector instructions beside loads and stores, for each vector; none of them crosses lanes."""
    code = build(decoder(64, 1, bits, 8), target_of("avx2")).inspect_source("asm")
    lines = re.findall(r"^\s+(v\w+)\s+(.*%ymm.*)$", code, re.MULTILINE)
    stores = sum(bool(re.match(r"%ymm\d+, .*\(", operands)) for _, operands in lines)
    names = [name for name, _ in lines if not name.startswith(("vmov", "vpbroadcast"))]
    assert not [name for name in names if re.match(r"vp?(erm|shuf|unpck|insr|extr)", name)]
    assert stores and stores < len(names) <= most * stores
