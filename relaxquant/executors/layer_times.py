"""The time of each kernel call, from the stamps that a network takes."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from ..lower.record import KernelRecord, KernelTable
from .buffers import aligned_empty
from .stamps import CALLS, NOW, STAMPED


@dataclass(frozen=True)
class LayerTime:
    """Time of one kernel call.

    Attributes
    ----------
    record : KernelRecord
        The call; ``record.name`` is its function in the generated code.
    seconds : float
        From just before the call to just after it, by the processor's time-stamp counter; median
        over the repeats of a profile. About 0.1 us of it are the call and the stamp.
    """

    record: KernelRecord
    seconds: float


class StampedNetwork:
    """A network that writes a time stamp before and after each kernel call.

    Parameters
    ----------
    machine : tvm.relax.VirtualMachine
        Of an executable made with `stamps.with_stamps`.

    Attributes
    ----------
    names : tuple of str
        Functions called, in order.
    """

    def __init__(self, machine: relax.VirtualMachine):
        self.names = tuple(json.loads(str(machine[CALLS]())))
        self._main, self._now = machine[STAMPED], machine[NOW]
        self._stamps = aligned_empty((2 * len(self.names),), np.int64)
        self._stamps_tensor = tvm.runtime.from_dlpack(self._stamps)

    def __call__(self, arguments: Sequence):
        """Run it on tensors; returns what ``main`` returns."""
        return self._main(*arguments, self._stamps_tensor)

    def ticks(self) -> np.ndarray:
        """Ticks that each call of the last run took, int64 (calls,)."""
        before, after = self._stamps.reshape(-1, 2).T
        return after - before

    def seconds(self, arguments: Sequence, repeats: int) -> np.ndarray:
        """Seconds of each call, float64 (repeats, calls), after one run that is not counted."""
        self(arguments)
        clock = Clock(self._now)
        ticks = []
        for _ in range(repeats):
            self(arguments)
            ticks.append(self.ticks())
        return np.array(ticks) * clock.seconds_per_tick()


class Clock:
    """The rate of the processor's counter, against Python's clock from here to when it is asked.

    Parameters
    ----------
    now : callable
        `stamps.NOW` of a network.
    """

    def __init__(self, now):
        self._now = now
        self._stamp = aligned_empty((1,), np.int64)
        self._tensor = tvm.runtime.from_dlpack(self._stamp)
        self._read()  # the first call is slow
        self._start = self._read()

    def seconds_per_tick(self) -> float:
        """Seconds over ticks since this clock was made."""
        seconds, ticks = self._read()
        return (seconds - self._start[0]) / (ticks - self._start[1])

    def _read(self) -> tuple[float, int]:
        """Seconds and ticks of one moment: between two readings of Python's clock."""
        before = time.perf_counter()
        self._now(self._tensor)
        after = time.perf_counter()
        return (before + after) / 2, int(self._stamp[0])


def match(kernels: KernelTable, names: Sequence[str], seconds: Sequence[float]) -> list[LayerTime]:
    """Give each timed call its record.

    Records and calls are in the same order, and a record may have no call: TVM's own pipeline lets
    the virtual machine do some operators, such as a reshape, by itself. Calls that do not fit the
    records are known by their function's name.
    """
    remaining = iter(kernels)
    records = [next((r for r in remaining if r.name == name), None) for name in names]
    if None in records:
        records = [_unknown(name) for name in names]
    return [LayerTime(*pair) for pair in zip(records, map(float, seconds), strict=True)]


def _unknown(name: str) -> KernelRecord:
    return KernelRecord(name, "", name.rstrip("0123456789"), "", "", "", "")
