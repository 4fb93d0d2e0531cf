"""The figures of the explorer: rates under the roofline, and pictures."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot

from workbook import plots
from workbook.figures import colour
from workbook.widths import FP32

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from workbook.explore import Found

FADED = 0.3
PICTURES = 8


def rates(found: Found, layer: str = "") -> Figure:
    """GMAC/s of every convolution and dense layer, each under its limit.

    Parameters
    ----------
    found : Found
        What was measured.
    layer : str
        The layer that stands out, by name; all alike where it is empty.
    """
    shade = colour("fp32" if found.choice.width == FP32 else "int8 graph")
    places = np.arange(len(found.layers))
    figure, axes = pyplot.subplots(figsize=(9.6, 4.2))
    bars = axes.bar(places, [each.rate for each in found.layers], 0.8, color=shade)
    for bar, each in zip(bars, found.layers, strict=True):
        bar.set_alpha(1 if layer in ("", each.time.record.layer) else FADED)
    limits = [each.limit for each in found.layers]
    axes.hlines(limits, places - 0.45, places + 0.45, color="black", lw=1.2, label="roofline")
    labels = [each.time.record.shape.replace(" -> ", "\n") for each in found.layers]
    axes.set_xticks(places, labels, rotation=90, fontsize=6)
    axes.set_ylabel("GMAC/s")
    axes.grid(axis="x", visible=False)
    axes.margins(x=0.01, y=0.12)
    axes.legend()
    return figure


def pictures(found: Found) -> Figure:
    """The first pictures with what fp32 and the choice see in them; green frame: it is right."""
    return plots.predictions(
        found.pictures[:PICTURES], found.captions[:PICTURES], found.correct[:PICTURES]
    )


def png(figure: Figure) -> bytes:
    """A figure as PNG; it is closed."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    pyplot.close(figure)
    return stream.getvalue()
