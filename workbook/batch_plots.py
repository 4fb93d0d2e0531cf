"""The figure of the batch notebook: time an image and memory, by batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot

from workbook.batches import MIB, Batch, Bound
from workbook.figures import colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROLES = {"fp32": "fp32", "int8": "int8 graph"}


def time_and_memory(results: Sequence[Batch], found: Mapping[int, list[Bound]]) -> Figure:
    """Milliseconds an image with the roofline's limit dashed, and peak memory in parts."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.6, 3.8))
    sizes = [batch.size for batch in results]
    for precision, role in ROLES.items():
        medians = np.array([batch.per_image_ms(precision) for batch in results])
        quartiles = [
            np.array(batch.timings.quartiles(precision)) * 1e3 / batch.size for batch in results
        ]
        whiskers = np.abs(np.array(quartiles).T - medians)
        left.errorbar(sizes, medians, whiskers, marker="o", color=colour(role), label=precision)
        limit = [_limit(found[size], precision) / size for size in sizes]
        left.plot(sizes, limit, "--", color=colour(role), label=f"{precision}, roofline")
    left.set_xscale("log", base=2)
    left.set_xticks(sizes, [str(size) for size in sizes])
    left.margins(y=0.3)  # room for the legend
    left.set_ylim(bottom=0)
    left.set(xlabel="batch", ylabel="milliseconds an image")
    left.legend(loc="upper right", ncols=2)
    _memory(right, results)
    return figure


def _limit(bounds: Sequence[Bound], precision: str) -> float:
    return next(bound.limit_ms for bound in bounds if bound.precision == precision)


def _memory(axes, results: Sequence[Batch]) -> None:
    """Stacked bars: weights, planned activations, and the rest of what the network added."""
    names = [f"{p}\n{batch.size}" for batch in results for p in ROLES]
    colours = [colour(role) for _ in results for role in ROLES.values()]
    parts = {"weights": ("", []), "planned activations": ("//", []), "the rest": ("..", [])}
    for batch in results:
        for precision in ROLES:
            memory = batch.libraries[precision].memory
            known = (memory.weight_bytes, memory.activations)
            values = (*known, max(batch.network_bytes(precision) - sum(known), 0))
            for (_, heights), value in zip(parts.values(), values, strict=True):
                heights.append(value / MIB)
    base = np.zeros(len(names))
    for label, (hatch, heights) in parts.items():
        bars = axes.bar(names, heights, bottom=base, hatch=hatch, label=label, edgecolor="white")
        for bar, shade in zip(bars, colours, strict=True):
            bar.set_facecolor(shade)
        base += heights
    axes.set_ylabel("memory of the network at its peak (MiB)")
    axes.set_xlabel("precision and batch")
    axes.grid(axis="x", visible=False)
    axes.legend()
