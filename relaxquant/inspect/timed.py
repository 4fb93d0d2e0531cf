"""A network's time by what its code multiplies: the proof weighted by a profile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError
from ..executors.layer_times import LayerTime
from ..lower.record import KernelRecord

if TYPE_CHECKING:
    from .proof import LayerProof, Proof

NO_MACS = "no multiply-accumulate"


@dataclass(frozen=True)
class TimedLayer:
    """One kernel call, what it multiplies and how long it takes.

    Attributes
    ----------
    record : KernelRecord
        The call.
    seconds : float
        As `LayerTime` has it.
    proof : LayerProof or None
        What it multiplies; None for a call without multiply-accumulates.
    """

    record: KernelRecord
    seconds: float
    proof: LayerProof | None = None

    @property
    def macs(self) -> int:
        """Nominal multiply-accumulates of one call."""
        return self.proof.macs if self.proof else 0

    @property
    def precision(self) -> str:
        """What is multiplied most: ``"int8"``, or `NO_MACS`."""
        shares = self.shares
        return max(shares, key=shares.get)

    @property
    def shares(self) -> dict[str, float]:
        """Share of its multiply-accumulates by the type in which they are executed."""
        if self.proof is None:
            return {NO_MACS: 1.0}
        total = sum(self.proof.executed.values())
        if not total:
            return {"unknown": 1.0}
        return {kind: number / total for kind, number in self.proof.executed.items()}


@dataclass(frozen=True)
class TimedProof:
    """Kernel calls with what they multiply and how long they take; prints as a table.

    Attributes
    ----------
    rows : tuple of TimedLayer
        All calls of a profile, in order.
    """

    rows: tuple[TimedLayer, ...]

    @property
    def seconds(self) -> float:
        """Time of all calls."""
        return sum(row.seconds for row in self.rows)

    @property
    def macs(self) -> int:
        """Nominal multiply-accumulates of all calls."""
        return sum(row.macs for row in self.rows)

    @property
    def integer_share(self) -> float:
        """Share of the time that calls take which multiply in integers, 0 to 1."""
        integer = sum(row.seconds * row.proof.integer_share for row in self.rows if row.proof)
        return integer / self.seconds

    @property
    def multiplying_share(self) -> float:
        """Share of the time that calls take which multiply and accumulate at all, 0 to 1."""
        return sum(row.seconds for row in self.rows if row.proof) / self.seconds

    def by_precision(self) -> list[dict]:
        """A row for each type that is multiplied, the one that takes most time first.

        The time of a call that multiplies in several types is split as its multiply-accumulates.
        """
        macs: Counter = Counter()
        seconds: Counter = Counter()
        for row in self.rows:
            for kind, share in row.shares.items():
                macs[kind] += row.macs * share
                seconds[kind] += row.seconds * share
        return [
            {
                "precision": kind,
                "macs_share": macs[kind] / self.macs if self.macs else 0.0,
                "seconds": spent,
                "time_share": spent / self.seconds,
            }
            for kind, spent in seconds.most_common()
        ]

    def lines(self) -> list[dict]:
        """A row for each call: shares of the network's multiply-accumulates and of its time."""
        return [
            {
                "layer": row.record.layer or row.record.name,
                "op": row.record.op,
                "shape": row.record.shape,
                "schedule": row.record.schedule,
                "precision": row.precision,
                "macs_share": row.macs / self.macs if self.macs else 0.0,
                "seconds": row.seconds,
                "time_share": row.seconds / self.seconds,
            }
            for row in self.rows
        ]

    def __str__(self) -> str:
        return "\n".join(
            f"{line['precision']}: {100 * line['macs_share']:.1f} % of the MACs, "
            f"{100 * line['time_share']:.1f} % of the time"
            for line in self.by_precision()
        )


def timed(proof: Proof, profile: Sequence[LayerTime]) -> TimedProof:
    """Join a proof with the profile of the same library.

    Parameters
    ----------
    proof : Proof
        From `relaxquant.proof`.
    profile : sequence of LayerTime
        From ``lib.profile(x)``.

    Raises
    ------
    InputError
        If a layer of the proof has no time in the profile.
    """
    remaining = list(proof.rows)
    rows = []
    for time in profile:
        fits = bool(remaining) and remaining[0].record == time.record
        rows.append(TimedLayer(time.record, time.seconds, remaining.pop(0) if fits else None))
    if remaining:
        raise InputError(
            f"the profile has no time of layer {remaining[0].record.layer!r}: pass lib.profile(x) "
            "of the library that was proved"
        )
    return TimedProof(tuple(rows))
