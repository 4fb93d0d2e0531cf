"""What NVIDIA's compiler makes of CUDA kernels: registers, spills, occupancy, and instructions.

Nothing is run: `relaxquant` compiles the text by NVRTC and has it disassembled, where these are
installed and know the compute capability.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import relaxquant as rq
from relaxquant.executors import nvidia
from relaxquant.executors.launches import function_of, kernel_of
from relaxquant.inspect.classes import DP4A, MMA

if TYPE_CHECKING:
    from relaxquant import Library

PERCENT = 100
PTX = {DP4A: re.compile(r"\bdp4a\."), MMA: re.compile(r"\bw?mma\.(?:mma\.)?sync\.")}
SASS = {DP4A: re.compile(r"\bIDP\."), MMA: re.compile(r"\b[IH]MMA\.")}
IN_SASS = {DP4A: "IDP in machine code", MMA: "IMMA or HMMA in machine code"}


def network_lines(libraries: Mapping[str, Library]) -> list[dict[str, Any]]:
    """A line a library: kernels, the most registers, spills, and what multiplies; or why not."""
    lines = []
    for name, library in libraries.items():
        try:
            lines.append({"compiled": name, **_network_line(library)})
        except rq.TargetError as error:
            lines.append({"compiled": name, "kernels": f"not compiled: {error}"})
    return lines


def _network_line(library: Library) -> dict[str, Any]:
    taken = library.resources.values()
    line = {
        "kernels": len(taken),
        "most registers": max(each.registers for each in taken),
        "kernels that spill": sum(each.spilled > 0 for each in taken),
        "most bytes spilled": max(each.spilled for each in taken),
        "most shared memory (bytes)": max(each.shared for each in taken),
        **{f"{word} in PTX": _count(PTX[word], library.source("ptx")) for word in PTX},
    }
    sass = _sass(library)
    return line if sass is None else line | {IN_SASS[w]: _count(SASS[w], sass) for w in SASS}


def layer_lines(library: Library) -> list[dict[str, Any]]:
    """A line a distinct layer that multiplies: what its kernel takes, and its instructions.

    Raises
    ------
    relaxquant.TargetError
        Where NVIDIA's compiler is not installed or does not know the compute capability.
    """
    taken, occupancy = library.resources, library.occupancy
    ptx, sass = nvidia.ptx_by_kernel(library.source("ptx")), _sass(library)
    parts = nvidia.sass_by_kernel(sass or "")
    lines = []
    for name in dict.fromkeys(record.name for record in library.kernels if record.macs):
        kernel, record = kernel_of(name), next(r for r in library.kernels if r.name == name)
        share = occupancy[kernel]
        line = {
            "layer": record.shape,
            "schedule": record.schedule,
            "threads": library.launches[kernel].threads,
            "registers": taken[kernel].registers,
            "bytes spilled": taken[kernel].spilled,
            "occupancy (%)": None if share is None else PERCENT * share,
            **{f"{word} in PTX": _count(PTX[word], ptx[kernel]) for word in PTX},
        }
        if sass is not None:
            line |= {IN_SASS[word]: _count(SASS[word], parts[kernel]) for word in SASS}
        lines.append(line)
    return lines


def words(library: Library) -> str:
    """Which kernels spill, or why nothing is known of them, in one sentence."""
    try:
        taken = library.resources
    except rq.TargetError as error:
        return f"Not compiled by NVIDIA's compiler: {error}."
    spilling = [function_of(name) for name, each in taken.items() if each.spilled]
    told = f"{', '.join(spilling)} spill" if spilling else "none spills"
    return f"Of {len(taken)} kernels {told} registers to memory."


def _sass(library: Library) -> str | None:
    try:
        return library.source("sass")
    except rq.TargetError:
        return None


def _count(word: re.Pattern, text: str) -> int:
    return len(word.findall(text))
