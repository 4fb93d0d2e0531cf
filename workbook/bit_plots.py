"""The figures of the bit-width notebook: accuracy, fronts, and the cat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import pyplot

from workbook import pareto
from workbook.bit_sweep import PRESET, RELAY
from workbook.figures import COLOURS, colour
from workbook.widths import FP32

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from workbook.bit_sweep import Result
    from workbook.top5 import Guess

MARKERS = {"per_channel": "o", "per_tensor": "s"}
SPREAD = 0.7  # of the room between two widths


def accuracy(results: Sequence[Result]) -> Figure:
    """Top-1 with its interval, by width; a colour a calibrator, a shape a granularity."""
    figure, axes = pyplot.subplots(figsize=(8.4, 4.2))
    quantized = [r for r in results if r.setting.config is not None]
    widths = list(dict.fromkeys(r.setting.precision for r in quantized))
    kinds = list(dict.fromkeys((r.setting.calibrator, r.setting.granularity) for r in quantized))
    shades = _shades([calibrator for calibrator, _ in kinds])
    for index, (calibrator, granularity) in enumerate(kinds):
        own = [
            r for r in quantized
            if (r.setting.calibrator, r.setting.granularity) == (calibrator, granularity)
        ]  # fmt: skip
        places = [widths.index(r.setting.precision) + _shift(index, len(kinds)) for r in own]
        values, bars = _with_bars(own)
        axes.errorbar(
            places, values, bars, linestyle="none", marker=MARKERS[granularity], markersize=5,
            color=shades[calibrator], label=f"{calibrator}, {granularity}", elinewidth=1,
        )  # fmt: skip
    for result in results:
        if result.setting.config is None:
            label = f"fp32, {100 * result.top1.value:.1f} %"
            axes.axhline(100 * result.top1.value, color="black", lw=0.8, ls="--", label=label)
    axes.set_xticks(range(len(widths)), widths)
    axes.set_ylabel("top-1 (%)")
    axes.set_ylim(bottom=0)
    axes.grid(axis="x", visible=False)
    axes.legend(fontsize=7, ncols=2)
    return figure


def _shades(calibrators: Sequence[str]) -> dict[str, str]:
    """Preset and relay have colours of their own; the others take what is left of the palette."""
    own = {PRESET: colour("int8 graph"), RELAY: colour("naive int8")}
    left = [shade for shade in COLOURS.values() if shade not in own.values()]
    others = [name for name in dict.fromkeys(calibrators) if name not in own]
    return own | {name: left[i % len(left)] for i, name in enumerate(others)}


def _shift(index: int, count: int) -> float:
    return SPREAD * ((index + 0.5) / count - 0.5)


def _with_bars(results: Sequence[Result]) -> tuple[list[float], np.ndarray]:
    values = [100 * r.top1.value for r in results]
    ends = np.array([(100 * r.top1.low, 100 * r.top1.high) for r in results]).T
    return values, np.abs(ends - np.array(values))


def fronts(points: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy against time and against size; filled points are those that no other one beats."""
    figure, panels = pyplot.subplots(1, 2, figsize=(9.6, 4.0), sharey=True)
    labels = {pareto.MILLISECONDS: "milliseconds, batch 1", pareto.MEBIBYTES: "weights (MiB)"}
    for axes, (cost, label) in zip(panels, labels.items(), strict=True):
        best = pareto.front(points, cost, pareto.TOP1)
        for point in points:
            _point(axes, point, cost, point in best)
        axes.plot(
            [p[cost] for p in best], [p[pareto.TOP1] for p in best],
            color=colour("published"), lw=1, drawstyle="steps-post", zorder=0,
        )  # fmt: skip
        axes.set_xlabel(label)
        axes.margins(x=0.12, y=0.1)
        axes.set_xlim(left=0)
    panels[0].set_ylabel("top-1 (%)")
    return figure


def _point(axes, point: Mapping[str, Any], cost: str, on_front: bool) -> None:
    value = point[pareto.TOP1]
    shade = colour("fp32" if point["precision"] == FP32 else "int8 graph")
    axes.errorbar(
        point[cost], value, [[value - point["low"]], [point["high"] - value]], marker="o",
        color=shade, markerfacecolor=shade if on_front else "white", elinewidth=1,
    )  # fmt: skip
    where = {"textcoords": "offset points", "fontsize": 8}
    axes.annotate(point["precision"], (point[cost], value), (5, 4), **where)


def cat(picture: np.ndarray, guesses: Sequence[Guess], columns: int = 3) -> Figure:
    """The cat, and for each precision the chances of its most likely classes; cats are green."""
    rows = -(-(len(guesses) + 1) // columns)
    figure, grid = pyplot.subplots(rows, columns, figsize=(9.6, 1.9 * rows), squeeze=False)
    for axes in grid.flat[len(guesses) + 1 :]:
        axes.set_axis_off()
    first = grid.flat[0]
    first.imshow(picture)
    first.set_axis_off()
    shades = {True: colour("int8 graph"), False: colour("stock TVM")}
    for axes, guess in zip(grid.flat[1:], guesses, strict=False):
        places = np.arange(len(guess.classes))
        axes.barh(places, guess.chances, color=[shades[cat] for cat in guess.cats])
        axes.set_yticks(places, guess.classes, fontsize=7)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_title(guess.name, fontsize=9)
        axes.grid(axis="y", visible=False)
    return figure
