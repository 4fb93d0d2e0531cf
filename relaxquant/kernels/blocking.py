"""How schedules that pack activations cut their work: by the cache, and into enough tasks."""

from __future__ import annotations

from .tir import T, ceildiv

# Packed activations of one task: half of an L2 cache of 512 KiB (Zen 2 and 3; later ones have
# more), so that the weights which stream past them do not push them out.
PACKED_BYTES = 1 << 18
# Tasks for one image that are enough to keep a few cores busy.
TASKS = 8


def split(total: int, item_bytes: int) -> int:
    """Items of one task: as many as fit `PACKED_BYTES`, in parts of nearly the same size."""
    most = max(PACKED_BYTES // item_bytes, 1)
    return ceildiv(total, ceildiv(total, most))


def channel_chunks(tiles: int, others: int) -> int:
    """Into how many chunks to cut ``tiles`` tiles of output channels, given ``others`` tasks.

    Each chunk packs the activations again, so there is one if the others are enough tasks by
    themselves, else the smallest divisor of ``tiles`` that makes enough (or all tiles).
    """
    divisors = [count for count in range(1, tiles + 1) if tiles % count == 0]
    return next((count for count in divisors if count * others >= TASKS), tiles)


def start_of(index, size: int, total: int):
    """Start of part ``index`` of parts of ``size`` in ``total``.

    The last one is moved back to end with the whole: what it then computes a second time has the
    same value, and no part needs code of its own for a smaller size.
    """
    return T.min(index * size, total - size) if total % size else index * size
