"""The figure of the schedule notebook: rates by distinct layer, under the machine's limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import pyplot

from workbook.figures import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from relaxquant.inspect import LayerBound
    from relaxquant.measure import Peak

HATCHES = ("", "////", "....")


def distinct_rates(profile: Sequence[Any]) -> dict[str, float]:
    """GMAC/s by shape, over all layers that have it, in the order of the network."""
    macs: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for layer in profile:
        if layer.record.macs:
            shape = layer.record.shape
            macs[shape] = macs.get(shape, 0) + layer.record.macs
            seconds[shape] = seconds.get(shape, 0.0) + layer.seconds
    return {shape: macs[shape] / seconds[shape] / 1e9 for shape in macs}


def rates_by_layer(
    profiles: Mapping[str, Mapping[str, Sequence[Any]]],
    peak: Peak,
    bounds: Mapping[str, Sequence[LayerBound]],
) -> Figure:
    """A panel for each precision: bars of GMAC/s by distinct layer and schedule.

    Parameters
    ----------
    profiles : mapping
        Precision -> schedule -> list of ``LayerTime`` at batch 1.
    peak : Peak
        Its fastest instructions are the dashed line.
    bounds : mapping
        Precision -> the roofline of each layer if all its bytes came from memory: a tick a layer.
    """
    found = looks(name for schedules in profiles.values() for name in schedules)
    figure, panels = pyplot.subplots(len(profiles), 1, figsize=(9.6, 4.4 * len(profiles)))
    for axes, (precision, schedules) in zip(np.atleast_1d(panels), profiles.items(), strict=True):
        shapes = list(distinct_rates(next(iter(schedules.values()))))
        width = 0.8 / len(schedules)
        for index, (name, profile) in enumerate(schedules.items()):
            rates = distinct_rates(profile)
            heights = [rates.get(shape, np.nan) for shape in shapes]
            places = np.arange(len(shapes)) + index * width
            axes.bar(places, heights, width, label=name, ec="white", lw=0, **found[name])
        limit = peak.fastest(precision)
        axes.axhline(limit, color="black", linestyle="--", label="peak of the multiply units")
        _memory_ticks(axes, shapes, bounds[precision], limit)
        labels = [shape.replace(" -> ", "\n") for shape in shapes]
        axes.set_xticks(np.arange(len(shapes)) + 0.4 - width / 2, labels, rotation=90, fontsize=7)
        axes.set_ylabel(f"GMAC/s, {precision}")
        axes.grid(axis="x", visible=False)
        axes.legend(fontsize=7, ncols=3)
        axes.margins(y=0.25)
    return figure


def looks(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Colour and hatch of each schedule, the same in all panels.

    The integer Winograd looks like that of fp32; where there are more schedules than colours, the
    colours come again with a hatch.

    Parameters
    ----------
    names : iterable of str
        Schedules, in the order of the legend.
    """
    families = {name: name.removesuffix("_int") for name in names}
    shades = list(COLOURS.values())
    look = {
        family: {
            "color": shades[i % len(shades)],
            "hatch": HATCHES[i // len(shades) % len(HATCHES)],
        }
        for i, family in enumerate(dict.fromkeys(families.values()))
    }
    return {name: look[family] for name, family in families.items()}


def _memory_ticks(axes, shapes: list[str], bounds: Sequence[LayerBound], limit: float) -> None:
    rates = {bound.shape: bound.macs / bound.memory_s / 1e9 for bound in bounds}
    heights = [min(rates.get(shape, np.nan), limit) for shape in shapes]
    starts = np.arange(len(shapes)) - 0.05
    axes.hlines(heights, starts, starts + 0.85, color="black", lw=1, label="if all from memory")
