"""The accumulators of a register tile, and the inner loops that schedules share."""

from __future__ import annotations

from collections.abc import Callable

from .epilogue import Epilogue
from .intrinsics import DotProduct, InstructionSet
from .tile import Tile
from .tir import Expr, T, lanes_at, local, store

Position = tuple[Expr, Expr, Expr]  # image, output row, output column


class RegisterTile:
    """Accumulators of ``tile.pixels`` pixels by ``tile.vectors`` vectors of output channels.

    Each is a buffer of its own, of one vector, so that LLVM sees at once that it can live in a
    register.

    Parameters
    ----------
    isa : InstructionSet
        Vector width.
    tile : Tile
        The size.
    epilogue : Epilogue
        Gives the start values and stores the results.
    channel
        First output channel.
    """

    def __init__(self, isa: InstructionSet, tile: Tile, epilogue: Epilogue, channel):
        self.isa, self.tile, self.epilogue, self.channel = isa, tile, epilogue, channel
        self.whole = [lanes_at(0, isa.lanes)]
        self.registers = {
            at: local(isa.lanes, epilogue.bias.dtype) for at in self._at(0, tile.pixels)
        }
        self.update(lambda _, i, j: epilogue.initial(self.channel_of(j)))

    def channel_of(self, j: int):
        """First channel of vector ``j``."""
        return self.channel + j * self.isa.lanes

    def update(self, value: Callable, first: int = 0, last: int | None = None) -> None:
        """Set each accumulator of pixels ``first`` to ``last`` to ``value(accumulator, i, j)``."""
        for i, j in self._at(first, self.tile.pixels if last is None else last):
            register = self.registers[i, j]
            store(register, self.whole, value(register[self.whole[0]], i, j))

    def multiply_add(self, steps: int, x: Callable, w: Callable, dot: DotProduct | None) -> None:
        """Add ``x(i, k) * w(j, k)`` to every accumulator, for all ``k`` below ``steps``, unrolled.

        Parameters
        ----------
        steps : int
            Steps of the reduction; with ``dot`` a multiple of its chain, or one part of it.
        x : callable
            ``x(i, k)``: one float32, or with ``dot`` an int32 that holds four uint8.
        w : callable
            ``w(j, k)``: a vector of float32, or with ``dot`` four int8 for each lane.
        dot : DotProduct or None
            None for fp32.
        """
        chain = min(dot.chain, steps) if dot else 1
        for first in range(0, steps, chain):
            self._multiply_add(range(first, first + chain), x, w, dot)

    def _multiply_add(self, chain: range, x: Callable, w: Callable, dot: DotProduct | None) -> None:
        def value(acc, i: int, j: int):
            xs, ws = [x(i, k) for k in chain], [w(j, k) for k in chain]
            return dot.accumulate(acc, xs, ws) if dot else acc + self._splat(xs[0]) * ws[0]

        self.update(value)

    def finish(self, position: Callable[[int], Position]) -> None:
        """Store the outputs; ``position(i)`` says where pixel ``i`` lies."""
        for i, j in self._at(0, self.tile.pixels):
            n, oh, ow = position(i)
            acc = self.registers[i, j][self.whole[0]]
            self.epilogue.finish(acc, n, self.channel_of(j), oh, ow)

    def _splat(self, x):
        return T.broadcast(x, self.isa.lanes)

    def _at(self, first: int, last: int) -> list[tuple[int, int]]:
        return [(i, j) for i in range(first, last) for j in range(self.tile.vectors)]
