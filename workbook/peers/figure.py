"""Time and agreement of every variant, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot

from workbook.figures import colour
from workbook.peers.scenario import Found

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROLES = {"fp32": "fp32", "w8a8": "int8 graph"}
FEW_BITS = "other"  # of widths below 8


def bars(found: Found, unit: str = "milliseconds for one batch") -> Figure:
    """Horizontal bars: median latency with quartiles, and agreement with PyTorch's fp32.

    The colour tells the precision; ours are solid, the others pale.

    Parameters
    ----------
    found : workbook.peers.scenario.Found
        With at least one variant that was timed.
    unit : str
        Label of the left axis.
    """
    names = [name for name in found.timings.samples if name in found.agreement]
    medians = np.array([found.timings.median(name) for name in names]) * 1e3
    quartiles = np.array([found.timings.quartiles(name) for name in names]).T * 1e3
    shares = [found.agreement[name] for name in names]
    values = np.array([100 * share.value for share in shares])
    ends = np.array([[100 * share.low, 100 * share.high] for share in shares]).T
    figure, (left, right) = pyplot.subplots(
        1, 2, sharey=True, figsize=(7.2, 0.9 + 0.4 * len(names)), width_ratios=[3, 1]
    )
    _draw(left, found, names, medians, np.abs(quartiles - medians), " {:.3g} ms")
    _draw(right, found, names, values, np.abs(ends - values), "")
    left.invert_yaxis()
    left.set_xlabel(unit)
    left.margins(x=0.2)
    right.set_xlim(0, 105)
    right.set_xlabel("agreement (%)")
    return figure


def _draw(axes, found: Found, names: list[str], values, whiskers, text: str) -> None:
    jobs = [found.jobs[name] for name in names]
    drawn = axes.barh(
        names,
        values,
        xerr=whiskers,
        color=[colour(ROLES.get(job.precision, FEW_BITS)) for job in jobs],
        error_kw={"lw": 1},
    )
    for bar, job in zip(drawn, jobs, strict=True):
        bar.set_alpha(1.0 if job.peer == "ours" else 0.5)
    if text:
        axes.bar_label(drawn, [text.format(value) for value in values], padding=3)
    axes.grid(axis="y", visible=False)
