"""Fetching the next tile's weights while this one is computed.

Weights of a network do not stay in the cache between two inferences. A register tile's weights are
read again for every output row, but only the first reading waits for memory, at many times the
rate that memory has. Asking for the next tile's weights a few lines at a time, all through the
rows of this one, spreads that reading over the whole computation.
"""

from __future__ import annotations

from dataclasses import dataclass

from .tir import T, ceildiv

LINE = 64  # bytes of a cache line
INTO_L2 = 2  # LLVM's locality: prefetcht1 on x86
# Visits per line beyond which weights are so few that the first reading does not matter.
FEW_LINES = 2


@dataclass(frozen=True)
class WeightPrefetch:
    """Prefetches for a buffer of weights whose first axis is the tile of output channels.

    Parameters
    ----------
    tile_bytes : int
        Weights of one tile, contiguous.
    visits : int
        Times that `emit` is run during one tile.
    """

    tile_bytes: int
    visits: int

    @property
    def lines(self) -> int:
        """Cache lines to ask for at each visit; 0 where it is not worth it."""
        lines = ceildiv(self.tile_bytes, LINE)
        return ceildiv(lines, self.visits) if lines * FEW_LINES >= self.visits else 0

    def emit(self, weight, tile, visit) -> None:
        """Ask for the lines of tile ``tile + 1`` that visit number ``visit`` brings in.

        Past the last tile the addresses hold nothing of use; prefetching them is harmless.
        """
        elements = LINE // (weight.dtype.bits // 8)
        zeros = [0] * (len(weight.shape) - 2)
        for k in range(self.lines):
            at = weight[(tile + 1, *zeros, (visit * self.lines + k) * elements)]
            flags = (T.int32(0), T.int32(INTO_L2), T.int32(1))  # read, locality, data
            T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(at), *flags))
