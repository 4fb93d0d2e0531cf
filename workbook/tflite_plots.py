"""The figure of the TFLite notebook: times relative to LiteRT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot

from workbook.figures import colour
from workbook.tflite_subject import BY_CHANNEL, EXACT, FLOAT, INT8, LITERT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from relaxquant.measure import Timings

ROLES = {FLOAT: "fp32", INT8: "int8 graph", EXACT: "int8 vm", BY_CHANNEL: "other"}


def relative_times(timings: Mapping[str, Timings]) -> Figure:
    """Bars of time over LiteRT's, with 95 % intervals, a group for each model.

    Parameters
    ----------
    timings : mapping
        Model -> its interleaved run.
    """
    figure, axes = pyplot.subplots(figsize=(7.2, 3.6))
    width = 0.8 / len(ROLES)
    for index, (name, role) in enumerate(ROLES.items()):
        ratios = [each.ratio(name, LITERT) for each in timings.values()]
        values = np.array([ratio.value for ratio in ratios])
        ends = np.array([[ratio.low, ratio.high] for ratio in ratios]).T
        places = np.arange(len(timings)) + (index - (len(ROLES) - 1) / 2) * width
        bars = axes.bar(places, values, width, yerr=np.abs(ends - values), label=name,
                        color=colour(role), error_kw={"lw": 1})  # fmt: skip
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    axes.axhline(1, color="black", linestyle="--", linewidth=1)
    axes.set_xticks(range(len(timings)), list(timings))
    axes.set_ylabel(f"time / {LITERT}, int8")
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.15)
    axes.legend(fontsize=8, ncols=2)
    return figure
