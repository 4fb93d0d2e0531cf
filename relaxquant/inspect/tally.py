"""Instructions of LLVM IR, counted by what they do, on what, and whether in a loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .ir import Instruction


@dataclass(frozen=True)
class Tally:
    """How many instructions there are of each kind.

    Attributes
    ----------
    instructions : Counter
        By (opcode, element type, lanes, depth of loops around it).
    calls : Counter
        Calls by name of the function; calls by pointer are left out.
    """

    instructions: Counter = field(default_factory=Counter)
    calls: Counter = field(default_factory=Counter)

    @classmethod
    def of(cls, instructions: Iterable[Instruction]) -> Tally:
        """Count instructions."""
        tally = cls()
        for one in instructions:
            tally.instructions[one.opcode, one.element, one.lanes, one.block.depth] += 1
            if one.callee:
                tally.calls[one.callee] += 1
        return tally

    def count(
        self,
        opcode: str | None = None,
        element: str | None = None,
        lanes: int | None = None,
        in_loop: bool | None = None,
    ) -> int:
        """Instructions that agree with all that is given.

        Parameters
        ----------
        opcode, element : str, optional
            As of an `Instruction`: ``"fmul"``, ``"float"``.
        lanes : int, optional
            Of the vector, 1 for scalars.
        in_loop : bool, optional
            Whether they stand in a loop.
        """
        wanted = (opcode, element, lanes)
        return sum(
            number
            for (*kind, depth), number in self.instructions.items()
            if all(want in (None, have) for want, have in zip(wanted, kind, strict=True))
            and in_loop in (None, depth > 0)
        )

    def rows(self) -> list[dict]:
        """A row for each opcode, element type and width, the most frequent first."""
        kinds = {kind for *kind, _ in map(list, self.instructions) for kind in [tuple(kind)]}
        rows = [
            {
                "opcode": opcode,
                "element": element,
                "lanes": lanes,
                "in_loops": self.count(opcode, element, lanes, in_loop=True),
                "outside": self.count(opcode, element, lanes, in_loop=False),
            }
            for opcode, element, lanes in kinds
        ]
        return sorted(rows, key=lambda r: (-r["in_loops"] - r["outside"], *map(str, r.values())))


def merged(tallies: Iterable[Tally]) -> Tally:
    """The sum of tallies."""
    total = Tally()
    for tally in tallies:
        total.instructions.update(tally.instructions)
        total.calls.update(tally.calls)
    return total
