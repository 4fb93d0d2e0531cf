"""Networks compiled for CUDA: integer products in their text, and how their weights lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

import relaxquant as rq
from relaxquant.executors.launches import kernel_of
from relaxquant.inspect.classes import DP4A, MMA
from relaxquant.inspect.cuda_work import kernel_work
from relaxquant.kernels.cuda.mma_tile import pack_fragments
from relaxquant.kernels.pack import pack_conv
from relaxquant.kernels.spec import ConvSpec, TensorSpec

if TYPE_CHECKING:
    from relaxquant import Library
    from workbook.context import Run

PERCENT = 100


def layer_lines(library: Library) -> list[dict[str, Any]]:
    """A line a distinct layer that multiplies: its kernel's schedule and integer products."""
    works = kernel_work(library.source("cuda"))
    lines: dict[str, dict[str, Any]] = {}
    for record in library.kernels:
        if not record.macs:
            continue
        line = lines.setdefault(record.name, {"layer": record.shape, "times": 0})
        line["times"] += 1
        line |= {"schedule": record.schedule, "layout": record.layout, "tile": record.tile}
        written = works[kernel_of(record.name)].written
        lines[record.name] = line | {word: written[word] for word in (DP4A, MMA)}
    return list(lines.values())


def integer_share(library: Library) -> float:
    """Part of the multiply-accumulates, in %, that are executed in integers: `relaxquant.proof`."""
    return PERCENT * rq.proof(library).integer_share


def keep(run: Run, libraries: Mapping[str, Library], common: Mapping[str, Any]) -> None:
    """Record the share of multiply-accumulates that are executed in integers, one by executor.

    Parameters
    ----------
    run : Run
        The notebook's.
    libraries : mapping
        Those of one target, stock TVM's and ours.
    common : mapping
        Columns that all result rows share.
    """
    for library in libraries.values():
        executor = library.metadata.executor
        schedule = "tvm default" if executor == "naive" else "auto"
        columns = {"schedule": schedule, "executor": executor}
        share = integer_share(library)
        run.record(metric="cuda_integer_macs", value=share, unit="%", **columns, **common)


def packed_lines() -> list[dict[str, Any]]:
    """Which outputs and inputs the first words of a packed 1x1 layer belong to, of 32 to 16."""
    spec = ConvSpec(1, TensorSpec(32, 1, 1, "uint8"), TensorSpec(16, 1, 1, "uint8"))
    names = np.arange(16 * 32, dtype=np.int64).reshape(16, 32, 1, 1)
    orders = {
        "OIHW4o4i, dp4a": pack_conv(spec, names, 4).ravel(),
        "a warp's fragments, mma.sync": pack_fragments(spec, names).ravel(),
    }
    lines = []
    for layout, order in orders.items():
        for first in range(0, 20, 4):
            outputs, inputs = np.divmod(order[first : first + 4], 32)
            word = {"layout": layout, "word": first // 4, "output channel": int(outputs[0])}
            lines.append(word | {"input channels": f"{inputs[0]} to {inputs[-1]}"})
    return lines
