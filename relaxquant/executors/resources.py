"""What a kernel takes of a multiprocessor, and how many of its threads that leaves room for.

Registers, local memory and shared memory are what NVIDIA's assembler says when it compiles the
text. Occupancy is arithmetic: the blocks that fit at once, over the threads that would.

Source of the blocks, and of the granularity in which all is allotted: NVIDIA's ``cuda_occupancy.h``
of CUDA 12.9. Threads and shared memory are those that NVIDIA publishes in the CUDA C++ Programming
Guide, "Technical Specifications per Compute Capability"; no device was asked for them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import TargetError

KIB = 1 << 10
WARP = 32
PARTS = 4  # of a multiprocessor, each with a quarter of the registers
REGISTERS = 64 * KIB  # of a multiprocessor
REGISTER_STEP = 256  # that a warp gets at a time


@dataclass(frozen=True)
class Multiprocessor:
    """What a multiprocessor holds: threads, blocks, and bytes of shared memory."""

    threads: int
    blocks: int
    shared: int


# Compute capability -> limits; where a figure is not published beside the others, there is none.
MULTIPROCESSORS = {
    "sm_61": Multiprocessor(2048, 32, 96 * KIB),
    "sm_70": Multiprocessor(2048, 32, 96 * KIB),
    "sm_75": Multiprocessor(1024, 16, 64 * KIB),
    "sm_80": Multiprocessor(2048, 32, 164 * KIB),
    "sm_86": Multiprocessor(1536, 16, 100 * KIB),
    "sm_89": Multiprocessor(1536, 24, 100 * KIB),
    "sm_90": Multiprocessor(2048, 32, 228 * KIB),
    "sm_100": Multiprocessor(2048, 32, 228 * KIB),
    "sm_120": Multiprocessor(1536, 24, 100 * KIB),
}

_KERNEL = re.compile(r"Compiling entry function '(\w+)' for '\w+'")
_LOCAL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(.*)")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Resources:
    """What one kernel takes.

    Attributes
    ----------
    registers : int
        Of a thread.
    local : int
        Bytes of local memory, that is of global memory behind the caches, that a thread's arrays
        and spilled registers take.
    spilled : int
        Bytes that the code stores there because registers ran out; 0 is as it should be.
    shared : int
        Bytes of shared memory of a block.
    """

    registers: int
    local: int
    spilled: int
    shared: int


def resources_of(log: str) -> dict[str, Resources]:
    """Kernel -> what it takes, from the log of NVIDIA's assembler with ``-v``.

    Raises
    ------
    TargetError
        If the log has a kernel without its figures.
    """
    found = {}
    heads = list(_KERNEL.finditer(log))
    for head, end in zip(heads, [*(h.start() for h in heads[1:]), len(log)], strict=True):
        part = log[head.end() : end]
        local, used = _LOCAL.search(part), _USED.search(part)
        if not (local and used):
            raise TargetError(f"NVIDIA's assembler does not say what {head[1]} takes")
        shared = _SHARED.search(used[2])
        found[head[1]] = Resources(
            registers=int(used[1]),
            local=int(local[1]),
            spilled=int(local[2]),
            shared=int(shared[1]) if shared else 0,
        )
    return found


def occupancy(taken: Resources, threads: int, arch: str) -> float | None:
    """Threads that a multiprocessor runs at once over those it could, at best; from 0 to 1.

    The least of four numbers of blocks counts: by threads, by blocks, by registers, which every
    warp gets in steps of `REGISTER_STEP` from one of `PARTS` parts, and by shared memory, which is
    allotted in steps of 128 bytes with 1 KiB for the system, before sm_80 of 256 bytes without.

    Parameters
    ----------
    taken : Resources
    threads : int
        Of a block.
    arch : str
        ``"sm_80"`` and the like.

    Returns
    -------
    float or None
        None for a compute capability that `MULTIPROCESSORS` does not have.
    """
    limits = MULTIPROCESSORS.get(arch)
    if limits is None:
        return None
    warps = -(-threads // WARP)
    each = _rounded(max(taken.registers, 1) * WARP, REGISTER_STEP)
    by_registers = REGISTERS // PARTS // each * PARTS // warps
    old = int(arch.removeprefix("sm_")) < 80
    asked = _rounded(taken.shared + (0 if old else KIB), 256 if old else 128)
    by_shared = limits.shared // asked if asked else limits.blocks
    by_threads = limits.threads // WARP // warps
    blocks = min(limits.blocks, by_threads, by_registers, by_shared)
    return blocks * warps * WARP / limits.threads


def _rounded(number: int, step: int) -> int:
    return -(-number // step) * step
