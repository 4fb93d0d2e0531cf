"""Figures of what quantization does inside a network: noise by layer, and how values are spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot

from workbook.figures import COLOURS, colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from relaxquant.quantize import DebugReport, Sensitivity
    from workbook.inside import Spread


def noise_by_layer(reports: Mapping[str, DebugReport]) -> Figure:
    """Signal to noise along the network: with all errors before it, and (dashed) its own alone."""
    figure, axes = pyplot.subplots(figsize=(8.4, 3.8))
    shades = [shade for role, shade in COLOURS.items() if role not in ("published", "stock TVM")]
    for (name, report), shade in zip(reports.items(), shades, strict=False):
        places = np.arange(len(report.layers))
        total = [layer.sqnr for layer in report.layers]
        own = [layer.own_sqnr for layer in report.layers]
        axes.plot(places, total, marker=".", color=shade, label=f"{name}, all errors up to here")
        axes.plot(places, own, "--", lw=1, color=shade, label=f"{name}, this layer alone")
    first = next(iter(reports.values()))
    axes.set_xticks(places, [layer.tensor for layer in first.layers], rotation=90, fontsize=6)
    axes.set_ylabel("signal to quantization noise (dB)")
    axes.legend(fontsize=8, ncols=2)
    return figure


def sensitivity(ranked: Sensitivity) -> Figure:
    """Bars of what each layer alone costs, the costliest first; convolutions and dense layers."""
    figure, axes = pyplot.subplots(figsize=(8.4, 3.6))
    shades = {"nn.conv2d": colour("int8 graph"), "matmul": colour("other")}
    for op, shade in shades.items():
        places = [place for place, row in enumerate(ranked) if row.op == op]
        heights = [ranked[place].kl for place in places]
        axes.bar(places, heights, color=shade, label=op.removeprefix("nn."))
    axes.set_xticks(range(len(ranked)), [row.layer for row in ranked], rotation=90, fontsize=7)
    axes.set_ylabel("divergence from fp32 (nats)")
    axes.set_yscale("log")
    axes.grid(axis="x", visible=False)
    axes.legend()
    return figure


def histograms(weights: Sequence[Spread], activations: Sequence[Spread]) -> Figure:
    """Values before quantization as area, the levels they become as stems, thresholds as lines."""
    columns = max(len(weights), len(activations))
    figure, grid = pyplot.subplots(2, columns, figsize=(3.2 * columns, 5.2), squeeze=False)
    for row, (kind, spreads) in enumerate((("weights", weights), ("activations", activations))):
        for axes in grid[row, len(spreads) :]:
            axes.set_axis_off()
        for axes, spread in zip(grid[row], spreads, strict=False):
            _histogram(axes, spread)
            axes.set_title(f"{kind}, {spread.name}", fontsize=9)
        grid[row, 0].set_ylabel("values, log scale")
    handles, labels = grid[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _histogram(axes, spread: Spread) -> None:
    before, after = colour("stock TVM"), colour("int8 graph")
    seen = spread.counts > 0
    axes.fill_between(
        spread.centres, np.where(seen, spread.counts, np.nan), 0.5,
        step="mid", color=before, lw=0, label="before",
    )  # fmt: skip
    if len(spread.levels):
        kept = spread.level_counts > 0
        axes.vlines(
            spread.levels[kept], 0.5, spread.level_counts[kept],
            color=after, lw=0.8, label="after",
        )  # fmt: skip
    for bound in (spread.low, spread.high):
        label = "threshold" if bound == spread.high else None
        axes.axvline(bound, color=colour("naive int8"), lw=1, ls="--", label=label)
    if spread.span[0] < spread.span[1]:
        for sign in (-1, 1):
            axes.axvspan(
                *sorted((sign * spread.span[0], sign * spread.span[1])),
                color=colour("naive int8"), alpha=0.12, lw=0,
            )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)
    axes.tick_params(labelsize=7)
    axes.grid(visible=False)
