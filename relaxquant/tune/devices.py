"""The devices of a tuning run: work is dealt to all of them, and one that is lost is dropped."""

from __future__ import annotations

import queue
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import tvm

from ..errors import InputError
from ..kernels.intrinsics import InstructionSet
from ..lower import ConvLayer
from .bench import Bench

MOST_LOSSES = 2  # a kernel that took so many devices with it is not run again


@dataclass
class Outcome:
    """What a kernel gave: seconds of its repeats, or an error; and on which device."""

    seconds: list[float] = field(default_factory=list)
    error: str = ""
    device: str = ""


class Devices:
    """One or more devices of the same kind.

    Parameters
    ----------
    devices : sequence
        Of `device.LocalDevice`, `device.LocalGpu` or `board.Board`.
    target : tvm.target.Target
        What to compile for.
    """

    def __init__(self, devices: Sequence, target: tvm.target.Target):
        self.alive, self.target = list(devices), target
        self._benches: dict[tuple, Bench] = {}

    def bench(self, device, layer: ConvLayer, isa: InstructionSet) -> Bench:
        """The bench of a layer on a device; only the last layer's are kept."""
        key = (id(device), id(layer))
        if key not in self._benches:
            others = [other for other in self._benches if other[1] != id(layer)]
            for other in others:
                del self._benches[other]
            bench = Bench(device, layer.spec, layer.weights, isa, self.target)
            self._benches[key] = bench
        return self._benches[key]

    def on_one(self, work: Callable):
        """``work(device)`` on the first device; on the next where that is lost meanwhile."""
        while True:
            device = self.alive[0]
            try:
                with device.timing():
                    return work(device)
            except Exception as error:
                if device.is_alive():
                    raise
                self.drop(device, error)

    def measure(
        self,
        layer: ConvLayer,
        isa: InstructionSet,
        kernels: Sequence[tvm.tirx.PrimFunc],
        arguments: list,
        best: float,
    ) -> Iterator[tuple[int, Outcome]]:
        """Check and time kernels of one layer; yields each with its index, as it is known.

        Parameters
        ----------
        layer, isa
            As for `bench`.
        kernels : sequence of tvm.tirx.PrimFunc
            To be measured.
        arguments : list
            Of all of them, as `Implementation.arguments`.
        best : float
            Seconds of the best kernel so far.
        """
        jobs = deque((index, 0) for index in range(len(kernels)))

        def one(device, index: int) -> Outcome:
            outcome = Outcome(device=device.name)
            try:
                bench = self.bench(device, layer, isa)
                with device.timing():
                    outcome.seconds = bench.checked_seconds(kernels[index], arguments, best)
            except Exception as error:  # of a schedule that does not compile, or of the connection
                outcome.error = f"{type(error).__name__}: {str(error).strip()[-300:]}"
            return outcome

        if self.alive[0].is_here:  # TVM's pool belongs to the thread that uses it
            yield from ((index, one(self.alive[0], index)) for index, _ in jobs)
            return
        while jobs:
            yield from self._deal(jobs, one)

    def _deal(self, jobs: deque, one: Callable) -> Iterator[tuple[int, Outcome]]:
        """Let every device take jobs until there are none; those of a lost one are put back."""
        results: queue.Queue = queue.Queue()

        def work(device) -> None:
            while jobs:
                try:
                    index, losses = jobs.popleft()
                except IndexError:  # another device took the last one
                    break
                outcome = one(device, index)
                is_lost = bool(outcome.error) and not device.is_alive()
                results.put((device, index, losses, outcome, is_lost))
                if is_lost:
                    return
            results.put(None)

        working = len(self.alive)
        for device in self.alive:
            threading.Thread(target=work, args=(device,), daemon=True).start()
        while working:
            result = results.get()
            if result is None:
                working -= 1
                continue
            device, index, losses, outcome, is_lost = result
            if not is_lost:
                yield index, outcome
                continue
            working -= 1
            self.drop(device, outcome.error)
            if losses + 1 < MOST_LOSSES:
                jobs.append((index, losses + 1))
            else:
                yield index, outcome

    def close(self) -> None:
        """Give all devices back."""
        self._benches.clear()
        for device in self.alive:
            device.close()

    def drop(self, device, error: Exception | str) -> None:
        """Go on without a device, and say so; InputError if it was the last one."""
        self.alive.remove(device)
        why = str(error).strip().splitlines()[-1:] or ["no message"]
        if not self.alive:
            raise InputError(
                f"{device.name} was lost ({why[0]}) and there is no other: start a server again "
                "and tune again, what was measured is kept"
            )
        rest = f"{len(self.alive)} other{'s' if len(self.alive) > 1 else ''}"
        warnings.warn(f"{device.name} was lost ({why[0]}); going on with {rest}", stacklevel=2)
