"""A float image in plain NCHW to uint8 or int16 pixels, for the first integer convolution.

A vector of pixels at a time: each channel's byte is shifted into the pixel's 32-bit word. In NCHW4c
the words are stored as they are; in NHWC their used bytes are moved together first. Of int16, in
NCHW4c only, a pixel takes two words, which are laid side by side.
"""

from __future__ import annotations

import tvm

from .intrinsics import InstructionSet
from .requantize import clip_vector
from .rounding import round_vector
from .spec import TensorSpec
from .tir import CUDA, T, ceildiv, lanes_at, splat, store


def is_image(data: TensorSpec, out: TensorSpec, isa: InstructionSet) -> bool:
    """Whether `image_to_pixels` takes this conversion."""
    to_words = out.block == 4 and out.dtype in ("uint8", "int16")
    to_pixels = out.blocks == 1 and (to_words or out.halo is not None)
    if out.dtype == "int16" and isa.machine == CUDA:
        return False  # which has no vectors of more than eight int16
    from_plain = data.block == 1 and data.dtype == "float32" and not data.channels_last
    return to_pixels and from_plain and data.width >= isa.lanes


def image_to_pixels(spec, isa: InstructionSet, batch, data, bounds, output) -> None:
    """Emit the conversion of a `ConvertSpec` that `is_image` accepts."""
    lanes, height, width, block = isa.lanes, spec.data.height, spec.data.width, spec.out.block
    with (
        T.parallel(batch * height) as task,
        T.serial(ceildiv(width, lanes)) as step,
    ):
        n, h = task // height, task % height
        # The last vector of a row is moved back to end with the row: some pixels twice, none lost.
        first = T.min(step * lanes, width - lanes)
        steps = []
        for c in range(spec.data.channels):
            value = data[n, c, h, lanes_at(first, lanes)] * T.broadcast(bounds[2], lanes)
            value = clip_vector(value, bounds[0], bounds[1], lanes)
            step = round_vector(value, spec.out.rounding, isa)
            steps.append(step + splat(spec.out.zero_point, "int32", lanes))
        # The index may run past the pixel's own channels: pixels lie one after the other.
        *pixel, _ = spec.out.element_at(n, 0, h, first)
        if spec.out.dtype == "int16":
            words = [_word(steps[:2], 16, lanes), _word(steps[2:], 16, lanes)]
            pixels = _side_by_side(words, lanes)
        else:
            pixels = _used_bytes(_word(steps, 8, lanes), block, lanes)
        store(output, [*pixel, lanes_at(0, block * lanes)], pixels)


def is_image_of_bytes(data: TensorSpec, out: TensorSpec, isa: InstructionSet) -> bool:
    """Whether `bytes_to_pixels` takes this conversion."""
    from_bytes = data.channels_last and data.dtype in ("uint8", "int8") and data.channels > 1
    to_pixels = out.blocks == 1 and out.dtype == "uint8" and (out.halo or out.block == 4)
    return bool(from_bytes and to_pixels) and data.width >= isa.lanes


def bytes_to_pixels(spec, isa: InstructionSet, batch, data, _bounds, output) -> None:
    """Emit the copy of an image in plain NHWC, `ConvertSpec.copies`, to pixels."""
    lanes, height, width, block = isa.lanes, spec.data.height, spec.data.width, spec.out.block
    count = spec.data.channels * lanes
    with (
        T.parallel(batch * height) as task,
        T.serial(ceildiv(width, lanes)) as step,
    ):
        n, h = task // height, task % height
        first = T.min(step * lanes, width - lanes)
        # Pixels lie one after the other: the index runs past the first one's channels.
        pixels = data[n, h, first, lanes_at(0, count)]
        if spec.data.dtype == "int8":
            pixels = T.bitwise_xor(
                T.reinterpret(f"uint8x{count}", pixels), splat(128, "uint8", count)
            )
        if block != spec.data.channels:
            pixels = _spread(pixels, spec.data.channels, block, lanes)
        *pixel, _ = spec.out.element_at(n, 0, h, first)
        store(output, [*pixel, lanes_at(0, block * lanes)], pixels)


def _spread(pixels, channels: int, block: int, lanes: int):
    """Pixels of ``channels`` bytes in ``block`` bytes each, zeros behind them."""
    count = channels * lanes
    order = [
        p * channels + c if c < channels else count for p in range(lanes) for c in range(block)
    ]
    return tvm.tirx.Shuffle([pixels, splat(0, "uint8", count)], [T.int32(at) for at in order])


def _word(steps: list, bits: int, lanes: int):
    """The low ``bits`` of each of the ``steps``, the first one lowest, in 32-bit words."""
    word = splat(0, "int32", lanes)
    for place, step in enumerate(steps):
        field = T.bitwise_and(step, splat((1 << bits) - 1, "int32", lanes))
        word = T.bitwise_or(word, T.shift_left(field, splat(bits * place, "int32", lanes)))
    return word


def _side_by_side(words: list, lanes: int):
    """Two words of every pixel as four int16, pixel after pixel."""
    order = [T.int32(pixel + lanes * k) for pixel in range(lanes) for k in range(2)]
    return T.reinterpret(f"int16x{4 * lanes}", tvm.tirx.Shuffle(words, order))


def _used_bytes(word, block: int, lanes: int):
    """The first ``block`` bytes of every word, one after the other."""
    pixels = T.reinterpret(f"uint8x{4 * lanes}", word)
    if block == 4:
        return pixels
    used = [4 * pixel + c for pixel in range(lanes) for c in range(block)]
    return tvm.tirx.Shuffle([pixels], [T.int32(at) for at in used])


def fill_halo(out: TensorSpec, batch, output) -> None:
    """Emit the writing of zero points around an image; see `TensorSpec.halo`."""
    _, _, rows, columns, block = out.physical_shape(batch)
    top, left, _, right = out.halo
    zero_point = tvm.tirx.const(out.zero_point, out.dtype)
    with T.parallel(batch * rows) as task:
        n, row = task // rows, task % rows

        def fill(first: int, count: int) -> None:
            with T.serial(count) as column, T.serial(block) as c:
                store(output, [n, 0, row, first + column, c], zero_point)

        with T.If(T.Or(row < top, row >= top + out.height)):
            with T.Then():
                fill(0, columns)
            with T.Else():
                fill(0, left)
                fill(columns - right, right)
