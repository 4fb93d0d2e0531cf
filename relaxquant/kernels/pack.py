"""Packing of weights at compile time, into the order in which a kernel reads them."""

from __future__ import annotations

import numpy as np

from .spec import ConvSpec
from .tir import ceildiv


def pack_conv(
    spec: ConvSpec, weight: np.ndarray, tile_channels: int, taps: int | None = None
) -> np.ndarray:
    """Weights of a convolution, one contiguous stream for each tile of output channels.

    Parameters
    ----------
    spec : ConvSpec
        The layer; its data block and precision set the inner axes.
    weight : numpy.ndarray
        (O, I / groups, KH, KW), int8, int16 or float32.
    tile_channels : int
        Output channels of a register tile, a divisor of the padded output channels.
    taps : int, optional
        Input channels that lie side by side, those of one step. Default: `ConvSpec.taps`.

    Returns
    -------
    numpy.ndarray
        (O tiles, I blocks, KH, KW, steps, tile_channels * taps). Padded channels are zero.
    """
    taps = taps or spec.taps
    block = spec.data.block
    out_channels, in_channels, kh, kw = weight.shape
    tiles = spec.out.padded_channels // tile_channels
    blocks = ceildiv(in_channels, block)
    padded = np.zeros((tiles * tile_channels, blocks * block, kh, kw), weight.dtype)
    padded[:out_channels, :in_channels] = weight
    split = padded.reshape(tiles, tile_channels, blocks, block // taps, taps, kh, kw)
    packed = split.transpose(0, 2, 5, 6, 3, 1, 4)
    return np.ascontiguousarray(packed.reshape(tiles, blocks, kh, kw, block // taps, -1))


def channel_quads(weight: np.ndarray, block: int = 4) -> np.ndarray:
    """int8 weights as (O, KH, KW, I / 4, 4), input channels zero-padded to whole blocks.

    The saturation proof needs the same neighbours, and the same successive fours within a block,
    as `pack_conv` lays side by side.
    """
    out_channels, in_channels, kh, kw = weight.shape
    padded = np.zeros((out_channels, ceildiv(in_channels, block) * block, kh, kw), weight.dtype)
    padded[:, :in_channels] = weight
    return padded.reshape(out_channels, -1, 4, kh, kw).transpose(0, 3, 4, 1, 2)


def border_correction(spec: ConvSpec, weight: np.ndarray) -> np.ndarray:
    """What a tap outside the image must add so that it counts as the zero point.

    Returns
    -------
    numpy.ndarray
        int32 (KH, KW + 1, padded O): ``zero_point * sum over input channels of weight`` for each
        tap, and in the last column the sum over a whole kernel row.
    """
    sums = weight.astype(np.int64).sum(axis=1).transpose(1, 2, 0) * spec.data.zero_point
    table = np.zeros((sums.shape[0], sums.shape[1] + 1, spec.out.padded_channels), np.int32)
    table[:, :-1, : sums.shape[2]] = sums
    table[:, -1, : sums.shape[2]] = sums.sum(axis=1)
    return table


def block_channels(vector: np.ndarray, block: int) -> np.ndarray:
    """(N, C, H, W) to (N, ceil(C / block), H, W, block), zero-padded: for tests and constants."""
    n, channels, height, width = vector.shape
    blocks = ceildiv(channels, block)
    padded = np.zeros((n, blocks * block, height, width), vector.dtype)
    padded[:, :channels] = vector
    split = padded.reshape(n, blocks, block, height, width)
    return np.ascontiguousarray(split.transpose(0, 1, 3, 4, 2))


def unblock_channels(blocked: np.ndarray, channels: int) -> np.ndarray:
    """The inverse of `block_channels`: (N, blocks, H, W, block) to (N, channels, H, W)."""
    n, blocks, height, width, block = blocked.shape
    plain = blocked.transpose(0, 1, 4, 2, 3).reshape(n, blocks * block, height, width)
    return np.ascontiguousarray(plain[:, :channels])
