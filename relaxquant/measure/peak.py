"""What this machine can do at most: multiply-accumulates a second, and bytes read a second.

The two limits of a roofline (Williams, Waterman and Patterson, "Roofline: An Insightful Visual
Performance Model", CACM 2009), measured rather than looked up: clock rates under load and shared
memory channels are in no data sheet. The loops are emitted through the same instruction sets as the
kernels, so a kernel is compared with what its own instructions can do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import tvm

from .. import target as targets
from ..errors import InputError, did_you_mean
from ..executors import threads as pool
from ..kernels.intrinsics import DotProduct, InstructionSet, instruction_set
from ..kernels.tir import T, arg, ceildiv, lanes_at, local, prim_func, splat, store
from .cpuinfo import read_cpu

FP32 = "fp32 multiply-add"
STEPS = 64  # activations of a row, in the first-level cache; a multiple of any chain
# The best sample counts: a limit is what is reached when nothing disturbs. Short ones, for some to
# fall between the turns of other processes.
SAMPLE_S = 0.001
SAMPLES_S = 0.2  # of all samples of one limit
MIN_SAMPLES = 5
MIN_STREAM_BYTES = 256 << 20
CHUNK = 1 << 14  # int32 elements that one task reads


@dataclass(frozen=True)
class Peak:
    """Measured limits of a machine.

    Attributes
    ----------
    isa : str
        Instruction set of the loops.
    threads : tuple of int
        The thread counts measured, ascending.
    gmacs : dict
        (instructions, threads) -> 10^9 multiply-accumulates a second, the instructions named as in
        ``lib.kernels``.
    read_gbs : dict
        threads -> 10^9 bytes a second, read from memory beyond the caches.
    """

    isa: str
    threads: tuple[int, ...]
    gmacs: dict[tuple[str, int], float]
    read_gbs: dict[int, float]

    @property
    def instructions(self) -> list[str]:
        """What was measured, fp32 first."""
        return list(dict.fromkeys(name for name, _ in self.gmacs))

    def rate(self, instructions: str, threads: int | None = None) -> float:
        """GMAC/s of these instructions; by default with the most threads measured.

        Raises
        ------
        InputError
            If they, or that thread count, were not measured.
        """
        threads = threads or self.threads[-1]
        if (instructions, threads) not in self.gmacs:
            hint = did_you_mean(instructions, self.instructions)
            raise InputError(
                f"no peak of {instructions!r} with {threads} threads was measured{hint} (measured: "
                f"{', '.join(self.instructions)}; threads {self.threads})"
            )
        return self.gmacs[instructions, threads]

    def fastest(self, precision: str, threads: int | None = None) -> float:
        """GMAC/s of ``"fp32"``, or of the fastest instructions for ``"int8"``.

        ``"int16"`` is given that of int8 too: a limit, which its products cannot come near.
        """
        if precision == "fp32":
            return self.rate(FP32, threads)
        return max(self.rate(name, threads) for name in self.instructions if name != FP32)

    def scaling(self, instructions: str) -> float:
        """Rate with the most threads over the rate with the fewest."""
        return self.rate(instructions, self.threads[-1]) / self.rate(instructions, self.threads[0])

    def best(self, other: Peak) -> Peak:
        """The higher of each limit: what disturbs a measurement only lowers it.

        Raises
        ------
        InputError
            If `other` is of another instruction set or other thread counts.
        """
        if (self.isa, self.threads) != (other.isa, other.threads):
            raise InputError(
                f"limits of {self.isa} with threads {self.threads} and of {other.isa} with threads "
                f"{other.threads} are not of one kind: measure both for the same target and threads"
            )
        gmacs = {key: max(rate, other.gmacs[key]) for key, rate in self.gmacs.items()}
        read = {count: max(rate, other.read_gbs[count]) for count, rate in self.read_gbs.items()}
        return Peak(self.isa, self.threads, gmacs, read)

    def balance(self, instructions: str, threads: int | None = None) -> float:
        """Multiply-accumulates a byte at which compute and memory take equally long."""
        threads = threads or self.threads[-1]
        return self.rate(instructions, threads) / self.read_gbs[threads]


def machine_peak(
    target: str | dict | tvm.target.Target = "native", threads: int | None = None
) -> Peak:
    """Measure the limits of this machine, in a second or two.

    Parameters
    ----------
    target : str, dict or tvm.target.Target
        Its instruction set gives the loops; it must run here.
    threads : int, optional
        Measured beside one thread; default: the physical cores.

    Returns
    -------
    Peak

    Raises
    ------
    InputError, TargetError
        As `relaxquant.compile` for the same arguments.
    """
    most = pool.check(threads)
    counts = tuple(sorted({1, most}))
    resolved = targets.resolve_cpu(target, "the peak measurement")
    isa = instruction_set(resolved)
    gmacs = {}
    for dot in (None, *isa.dots):
        for count in counts:
            gmacs[dot.name if dot else FP32, count] = _multiply_rate(isa, dot, count, resolved)
    stream = np.ones(_stream_bytes() // 4, np.int32).reshape(-1, CHUNK)
    data = tvm.runtime.tensor(stream)
    read = {count: _read_rate(isa, data, count, resolved) for count in counts}
    return Peak(isa.name, counts, gmacs, read)


def _stream_bytes() -> int:
    """Four times the caches, so that at most a small part of it can still be in them."""
    caches = [cache["bytes"] for cache in read_cpu()["caches"] or []]
    return ceildiv(max(MIN_STREAM_BYTES, 4 * max(caches, default=0)), 4 * CHUNK) * 4 * CHUNK


def _multiply_rate(isa: InstructionSet, dot: DotProduct | None, threads: int, target) -> float:
    """GMAC/s of one multiply instruction (or sequence) on registers."""
    vectors, pixels = _register_tile(dot.tile_registers if dot else isa.tile_registers)
    function = _built(partial(_emit_multiplies, isa, dot, threads, vectors, pixels), target)
    taps = 4 if dot else 1
    data = np.ones((pixels, STEPS, taps), np.uint8 if dot else np.float32)
    weight = np.ones((vectors, isa.lanes * taps), np.int8 if dot else np.float32)
    accumulators = np.zeros((threads, vectors * pixels * isa.lanes), np.int32 if dot else "float32")
    arguments = [tvm.runtime.tensor(array) for array in (data, weight, accumulators)]
    macs = threads * STEPS * vectors * pixels * isa.lanes * taps
    return macs / _best_seconds(lambda rounds: function(rounds, *arguments), threads) / 1e9


def _read_rate(isa: InstructionSet, data, threads: int, target) -> float:
    """GB/s of reading ``data``, int32 (tasks, CHUNK), once."""
    function = _built(partial(_emit_reads, isa, data.shape[0]), target)
    sums = tvm.runtime.tensor(np.zeros((data.shape[0], isa.lanes), np.int32))

    def read(rounds: int) -> None:
        for _ in range(rounds):
            function(data, sums)

    return 4 * data.shape[0] * CHUNK / _best_seconds(read, threads) / 1e9


def _register_tile(registers: int) -> tuple[int, int]:
    """Vectors by pixels that fill the registers, with few broadcasts for each multiply."""
    vectors = 4 if registers > 16 else 2
    return vectors, registers // vectors - 1


def _emit_multiplies(isa, dot, threads: int, vectors: int, pixels: int) -> None:
    """Each task multiplies ``rounds * STEPS`` broadcast activations by vectors of weights.

    The activations come from the first-level cache: of fixed ones LLVM would take the product out
    of the loop.
    """
    taps, dtype = (4, "int32") if dot else (1, "float32")
    size = isa.lanes * taps
    rounds = T.arg("rounds", T.int32())
    data = arg("data", (pixels, STEPS, taps), "uint8" if dot else "float32")
    weight = arg("weight", (vectors, size), "int8" if dot else "float32")
    out = arg("out", (threads, vectors * pixels * isa.lanes), dtype)
    with T.parallel(threads) as task:
        acc = local(vectors * pixels * isa.lanes, dtype)
        with T.unroll(vectors * pixels) as i:
            store(acc, [lanes_at(i * isa.lanes, isa.lanes)], splat(0, dtype, isa.lanes))
        chain = dot.chain if dot else 1
        loops = T.serial(rounds), T.serial(STEPS // chain), T.unroll(pixels), T.unroll(vectors)
        with loops[0], loops[1] as step, loops[2] as i, loops[3] as j:
            at = lanes_at((i * vectors + j) * isa.lanes, isa.lanes)
            w = weight[j, lanes_at(0, size)]
            if dot:
                fours = [data[i, step * chain + link, lanes_at(0, 4)] for link in range(chain)]
                xs = [T.reinterpret("int32", four) for four in fours]
                store(acc, [at], dot.accumulate(acc[at], xs, [w] * chain))
            else:
                x = T.broadcast(data[i, step, 0], isa.lanes)
                store(acc, [at], acc[at] + x * w)
        with T.unroll(vectors * pixels) as i:
            at = lanes_at(i * isa.lanes, isa.lanes)
            store(out, [task, at], acc[at])


def _emit_reads(isa: InstructionSet, tasks: int) -> None:
    """Each task sums a chunk into vectors, eight accumulators at a time."""
    data = arg("data", (tasks, CHUNK), "int32")
    out = arg("out", (tasks, isa.lanes), "int32")
    with T.parallel(tasks) as task:
        acc = local(8 * isa.lanes, "int32")
        with T.unroll(8) as i:
            store(acc, [lanes_at(i * isa.lanes, isa.lanes)], splat(0, "int32", isa.lanes))
        with T.serial(CHUNK // (8 * isa.lanes)) as step, T.unroll(8) as i:
            at = lanes_at(i * isa.lanes, isa.lanes)
            value = data[task, lanes_at((step * 8 + i) * isa.lanes, isa.lanes)]
            store(acc, [at], acc[at] + value)
        total = acc[lanes_at(0, isa.lanes)]
        for i in range(1, 8):
            total = total + acc[lanes_at(i * isa.lanes, isa.lanes)]
        store(out, [task, lanes_at(0, isa.lanes)], total)


def _built(emit: Callable[[], None], target):
    function = prim_func(emit).with_attr("global_symbol", "main")
    return tvm.tirx.build(tvm.IRModule({"main": function}), target=target)["main"]


def _best_seconds(run: Callable[[int], object], threads: int) -> float:
    """Least seconds a round, of samples that each last long enough to be timed."""
    pool.use(threads)
    rounds = 1
    # Of two, since one that was disturbed would end the search too early.
    while (elapsed := min(_timed(run, rounds), _timed(run, rounds))) < SAMPLE_S:
        rounds = max(2 * rounds, int(rounds * SAMPLE_S / max(elapsed, 1e-6)))
    samples = []
    while len(samples) < MIN_SAMPLES or sum(samples) < SAMPLES_S:
        samples.append(_timed(run, rounds))
    return min(samples) / rounds


def _timed(run: Callable[[int], object], rounds: int) -> float:
    start = time.perf_counter()
    run(rounds)
    return time.perf_counter() - start
