"""The figures that more than one notebook draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import pyplot

from workbook.figures import colour

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from relaxquant.measure import Timings

ROOM_FOR_WORDS = 40  # percent; a shorter bar has its figure behind it


def latency_bars(timings: Timings, roles: Mapping[str, str], *, log: bool = False) -> Figure:
    """Horizontal bars of median latency in ms with inter-quartile whiskers.

    Parameters
    ----------
    timings : relaxquant.measure.Timings
        An interleaved run.
    roles : mapping
        Variant -> role in the palette; only these are drawn, in this order.
    log : bool
        Logarithmic axis, for variants orders of magnitude apart.
    """
    names = list(roles)
    medians, whiskers = _milliseconds(timings, names)
    figure, axes = pyplot.subplots(figsize=(7.2, 0.9 + 0.5 * len(names)))
    colours = [colour(role) for role in roles.values()]
    bars = axes.barh(names, medians, xerr=whiskers, color=colours, error_kw={"lw": 1})
    axes.bar_label(bars, [f" {_short(value)} ms" for value in medians], padding=3)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("milliseconds for one batch" + (", log scale" if log else ""))
    if log:
        axes.set_xscale("log")
    axes.margins(x=0.18)
    return figure


def time_and_shares(
    timings: Timings,
    roles: Mapping[str, str],
    shares: Mapping[str, Mapping[str, tuple[float, float, float]]],
) -> Figure:
    """Median latency of each variant, and beside it what share of something it has, in percent.

    Parameters
    ----------
    timings : relaxquant.measure.Timings
        An interleaved run.
    roles : mapping
        Variant -> role in the palette; only these are drawn, in this order.
    shares : mapping
        Label of a panel -> variant -> value and the ends of its interval, in percent; a variant
        without one is left blank.
    """
    names = list(roles)
    figure, panels = pyplot.subplots(
        1, 1 + len(shares), sharey=True, figsize=(9.6, 1.2 + 0.5 * len(names)),
        width_ratios=[3, *[1.3] * len(shares)],
    )  # fmt: skip
    colours = [colour(role) for role in roles.values()]
    medians, whiskers = _milliseconds(timings, names)
    time = panels[0]
    bars = time.barh(names, medians, xerr=whiskers, color=colours, ecolor="black")
    time.bar_label(bars, [f" {_short(value)} ms" for value in medians], padding=3)
    time.set(xscale="log", xlabel="milliseconds for one batch, log scale")
    time.margins(x=0.32)
    time.invert_yaxis()
    for axes, (label, found) in zip(panels[1:], shares.items(), strict=True):
        _share_bars(axes, names, colours, found)
        axes.set_xlabel(label)
    for axes in panels:
        axes.grid(axis="y", visible=False)
    return figure


def _share_bars(
    axes: Any, names: Sequence[str], colours: Sequence[str], found: Mapping[str, tuple]
) -> None:
    for name, shade in zip(names, colours, strict=True):
        if name in found:
            value, low, high = found[name]
            whiskers = [[value - low], [high - value]]
            bar = axes.barh(name, value, xerr=whiskers, color=shade, ecolor="black")
            inside = value > ROOM_FOR_WORDS
            axes.bar_label(
                bar, [f"{value:.4g} %"], label_type="center" if inside else "edge", padding=3,
                color="white" if inside else "black", fontsize=8,
            )  # fmt: skip
    axes.set_xlim(0, 105)


def _milliseconds(timings: Timings, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Medians, and how far the quartiles lie below and above them, shape (2, names)."""
    medians = np.array([timings.median(name) for name in names]) * 1e3
    quartiles = np.array([timings.quartiles(name) for name in names]).T * 1e3
    return medians, np.abs(quartiles - medians)


def _short(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def layer_rates(
    profiles: Mapping[str, Sequence[Any]], roles: Mapping[str, str], batch: int = 1
) -> Figure:
    """GMAC/s of every convolution and dense layer, one panel for all profiles.

    Parameters
    ----------
    profiles : mapping
        Variant -> list of ``LayerTime``, as ``lib.profile`` gives it.
    roles : mapping
        Variant -> role in the palette.
    batch : int
        Images in a profiled run.
    """
    figure, axes = pyplot.subplots(figsize=(7.2, 4.6))
    width = 0.8 / len(profiles)
    first = _numbered(next(iter(profiles.values())))
    for index, (name, profile) in enumerate(profiles.items()):
        rates = {
            key: batch * layer.record.macs / layer.seconds / 1e9
            for key, layer in _numbered(profile).items()
        }
        heights = [rates.get(key, np.nan) for key in first]
        places = np.arange(len(first)) + index * width
        axes.bar(places, heights, width, label=name, color=colour(roles[name]))
    first = list(first.values())
    labels = [layer.record.shape.split(" -> ")[0] + _window(layer) for layer in first]
    axes.set_xticks(np.arange(len(first)) + 0.4 - width / 2, labels, rotation=90, fontsize=7)
    axes.set_ylabel("GMAC/s")
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.15)
    axes.legend()
    return figure


def _numbered(profile: Sequence[Any]) -> dict[tuple, Any]:
    """Layers by what they compute, and which of those that compute it they are.

    Quantizing gives layers other names, and branches another order; what a layer makes, in how many
    multiply-accumulates, stays.
    """
    found: dict[tuple, Any] = {}
    for layer in profile:
        if layer.record.macs:
            what = layer.record.macs, layer.record.shape.split(" -> ")[-1]
            found[*what, sum(key[:2] == what for key in found)] = layer
    return found


def _window(layer: Any) -> str:
    parts = layer.record.shape.split(", ")
    return f", {parts[1]}" if len(parts) > 1 else ", dense"


def share_of_time(profile: Sequence[Any], role: str, top: int = 8) -> Figure:
    """Bars of the operators that take the most time, as a share of the whole."""
    totals: dict[str, float] = {}
    for layer in profile:
        totals[layer.record.op] = totals.get(layer.record.op, 0.0) + layer.seconds
    ranked = sorted(totals.items(), key=lambda item: -item[1])[:top]
    whole = sum(totals.values())
    figure, axes = pyplot.subplots(figsize=(7.2, 0.9 + 0.35 * len(ranked)))
    shares = [100 * seconds / whole for _, seconds in ranked]
    bars = axes.barh([op for op, _ in ranked], shares, color=colour(role))
    axes.bar_label(bars, [f" {share:.1f} %" for share in shares], padding=3)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("share of the time (%)")
    axes.margins(x=0.12)
    return figure


def beside_published(table: pd.DataFrame, published: str, measured: str) -> Figure:
    """Grouped bars of one ratio, published and measured.

    Parameters
    ----------
    table : pandas.DataFrame
        Column ``variant`` and the two named.
    published, measured : str
        Columns with the ratios.
    """
    figure, axes = pyplot.subplots(figsize=(7.2, 3.4))
    places = np.arange(len(table))
    series = ((published, "published", -0.2), (measured, "int8 graph", 0.2))
    for column, role, shift in series:
        bars = axes.bar(places + shift, table[column], 0.4, label=column, color=colour(role))
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_yscale("log")
    axes.set_xticks(places, table["variant"])
    axes.set_ylabel("time relative to fp32, log scale")
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.15)
    axes.legend()
    return figure


def predictions(
    thumbnails: np.ndarray,
    captions: Sequence[str],
    correct: Sequence[bool | None],
    columns: int = 4,
) -> Figure:
    """Pictures with a caption each, framed by whether the prediction is right.

    Parameters
    ----------
    thumbnails : numpy.ndarray
        uint8 (n, edge, edge, 3).
    captions : sequence of str
        Short lines below each picture.
    correct : sequence of bool or None
        None where there is no label to compare with.
    """
    rows = -(-len(thumbnails) // columns)
    figure, grid = pyplot.subplots(rows, columns, figsize=(7.2, 2.4 * rows), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    frames = {True: colour("int8 graph"), False: colour("naive int8"), None: colour("published")}
    for axes, picture, caption, right in zip(
        grid.flat, thumbnails, captions, correct, strict=False
    ):
        axes.imshow(picture)
        axes.set_title(caption, fontsize=7, fontweight="normal", loc="center")
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set(visible=True, color=frames[right], linewidth=2)
    return figure
