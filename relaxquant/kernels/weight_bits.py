"""Weights of fewer than eight bits: how they lie in memory, and the code that decodes them.

Weights are a stream of int8 vectors in the order in which a kernel reads them. A weight of n bits
is stored as its code, ``w + 2**(n - 1)`` (for one bit: whether it is positive), and a code is cut
into fields of 4, 2 and 1 bits, as many as n is the sum of: 7 is 4 + 2 + 1. Eight vectors of n bits
become n vectors: a plane for each field, in whose bytes the fields of 2, 4 or 8 vectors lie side by
side. Decoding is then shifts, masks and an or on whole vectors, never across lanes, and one
subtraction of bytes at the end.

For weights of 4 bits that is a shift for every second vector, a mask and a subtraction each; 7
bits take about eight instructions a vector, and none takes more.

Source: our own. Planes of bits are usual for 1-bit networks (Tulloch and Jia, "High performance
ultra-low-precision convolutions on mobile devices", 2017); two 4-bit weights in the halves of a
byte are as in XNNPACK's ``qc4w`` and llama.cpp's ``Q4_0``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import InputError
from .tir import T, ceildiv, lanes_at, splat, store

FIELDS = (4, 2, 1)
WHOLE = 8  # bits of weights that are not packed


def bits_of(weight: np.ndarray) -> int:
    """The fewest bits whose codes hold all weights.

    Parameters
    ----------
    weight : numpy.ndarray
        int8, of any shape.

    Returns
    -------
    int
        1 for weights that are all -1 or 1, 2 for those in [-2, 1], n for those in
        ``[-2**(n - 1), 2**(n - 1) - 1]``, 8 at most.
    """
    if weight.size and (np.abs(weight.astype(np.int16)) == 1).all():
        return 1
    low, high = int(weight.min(initial=0)), int(weight.max(initial=0))
    return next(bits for bits in range(2, WHOLE + 1) if _low(bits) <= low and high < -_low(bits))


def _low(bits: int) -> int:
    """The lowest weight of n bits, whose code is 0."""
    return -(1 << bits - 1)


def fields_of(bits: int) -> list[tuple[int, int]]:
    """(bits of the field, bits of the code below it) for each field of a code, in stored order."""
    sizes = [size for size in FIELDS if bits & size]
    return [(size, sum(sizes[:i])) for i, size in enumerate(sizes)]


def group_size(bits: int) -> int:
    """Vectors of weights that are stored together: as many as fill whole vectors of each field."""
    return 8 // min(size for size, _ in fields_of(bits))


def stored_vectors(bits: int) -> int:
    """Vectors that a group takes in memory."""
    return group_size(bits) * bits // 8


def decoded_vectors(count: int, bits: int) -> int:
    """Vectors that come out of a decoded stream of ``count``: whole groups of them."""
    return ceildiv(count, group_size(bits)) * group_size(bits)


def pack(vectors: np.ndarray, bits: int) -> np.ndarray:
    """Streams of int8 vectors as fields of n bits.

    Parameters
    ----------
    vectors : numpy.ndarray
        int8 (..., count, bytes of a vector).
    bits : int
        1 to 7, at least `bits_of` the vectors.

    Returns
    -------
    numpy.ndarray
        uint8 (..., groups, stored vectors, bytes of a vector); where the last group is not full it
        ends with any weights.

    Raises
    ------
    InputError
        If a weight is not among those that n bits hold.
    """
    if not 1 <= bits < WHOLE:
        raise InputError(f"weights are packed in 1 to 7 bits, not {bits}")
    if bits_of(vectors) > bits:
        raise InputError(
            f"weights in [{vectors.min()}, {vectors.max()}] take {bits_of(vectors)} bits: they "
            f"cannot be packed in {bits}"
        )
    codes = vectors > 0 if bits == 1 else vectors.astype(np.int16) - _low(bits)
    *outer, count, size = vectors.shape
    group = group_size(bits)
    padded = np.zeros((*outer, decoded_vectors(count, bits), size), np.uint8)
    padded[..., :count, :] = codes
    groups = padded.reshape(*outer, -1, group, size)
    return np.concatenate([_plane(groups, *field) for field in fields_of(bits)], axis=-2)


def _plane(groups: np.ndarray, bits: int, below: int) -> np.ndarray:
    """One field of all codes: (..., group, size) to (..., group * bits / 8, size)."""
    *outer, group, size = groups.shape
    members = 8 // bits
    field = (groups >> below & (1 << bits) - 1).reshape(*outer, group // members, members, size)
    shifts = bits * np.arange(members, dtype=np.uint8)[:, None]
    return np.bitwise_or.reduce(field << shifts, axis=-2)


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of `pack`: int8 (..., count, bytes of a vector)."""
    *outer, groups, _, size = packed.shape
    group, first = group_size(bits), 0
    codes = np.zeros((*outer, groups, group, size), np.uint8)
    for width, below in fields_of(bits):
        planes, members = group * width // 8, 8 // width
        plane = packed[..., first : first + planes, None, :]
        shifts = width * np.arange(members, dtype=np.uint8)[:, None]
        field = (plane >> shifts & (1 << width) - 1).reshape(codes.shape)
        codes |= field << np.uint8(below)
        first += planes
    scale = 2 if bits == 1 else 1
    values = scale * codes.astype(np.int16) + (-1 if bits == 1 else _low(bits))
    return values.astype(np.int8).reshape(*outer, groups * group, size)[..., :count, :]


def decode(load: Callable[[int], T.Expr], bits: int, lanes: int) -> list:
    """The int8 vectors of one group, as TIR expressions.

    Parameters
    ----------
    load : callable
        ``load(k)``: stored vector ``k`` of the group, uint8 x 4 lanes.
    bits : int
        1 to 7.
    lanes : int
        32-bit lanes of a vector.

    Returns
    -------
    list
        `group_size` expressions of int8 x 4 lanes.
    """
    words = [T.bind(T.reinterpret(f"uint32x{lanes}", load(k))) for k in range(stored_vectors(bits))]
    # A code of one bit is doubled, so that 0 and 1 become -1 and 1 by a subtraction too.
    doubled = int(bits == 1)
    lowest = splat(1 if doubled else -_low(bits), "int8", 4 * lanes)
    vectors = []
    for member in range(group_size(bits)):
        code, first = None, 0
        for width, below in fields_of(bits):
            in_byte = 8 // width
            word = words[first + member // in_byte]
            field = _field(word, width, width * (member % in_byte), below + doubled, lanes)
            code = field if code is None else T.bitwise_or(code, field)
            first += group_size(bits) // in_byte
        vectors.append(T.reinterpret(f"int8x{4 * lanes}", code) - lowest)
    return vectors


def _field(word, width: int, source: int, target: int, lanes: int):
    """Bits of every byte, moved from bit ``source`` to bit ``target``, and no others."""
    distance = splat(abs(source - target), "uint32", lanes)
    if source > target:
        word = T.shift_right(word, distance)
    elif source < target:
        word = T.shift_left(word, distance)
    mask = ((1 << width) - 1 << target) * 0x01010101
    return T.bitwise_and(word, splat(mask, "uint32", lanes))


def emit_decode(packed, at: list, target, count: int, bits: int, lanes: int) -> None:
    """Emit the decoding of one stream of weights.

    Parameters
    ----------
    packed : buffer
        uint8, as `pack` lays it, of vectors of ``4 * lanes`` bytes.
    at : list
        Indices of its outer axes: which stream.
    target : buffer
        int8, flat, of ``decoded_vectors(count, bits)`` vectors.
    count : int
        Vectors of the stream.
    bits : int
        1 to 7.
    lanes : int
        32-bit lanes of a vector.
    """
    size, group = 4 * lanes, group_size(bits)
    with T.serial(ceildiv(count, group)) as i:
        vectors = decode(lambda k: packed[(*at, i, k, lanes_at(0, size))], bits, lanes)
        for member, vector in enumerate(vectors):
            store(target, [lanes_at((i * group + member) * size, size)], vector)
