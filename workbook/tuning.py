"""The tuning notebook's steps: a layer to tune, curves as lines and rows, and the figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib import pyplot
from matplotlib.ticker import LogLocator

from relaxquant.kernels import loop_conv2d
from relaxquant.lower import ConvLayer, conv_layers
from relaxquant.tune.study import OURS, STOCK
from workbook.errors import WorkbookError, hint
from workbook.figures import COLOURS

if TYPE_CHECKING:
    import tvm
    from matplotlib.figure import Figure

    from relaxquant.measure import Timings
    from relaxquant.tune.study import Curve
    from workbook.context import Run

SEARCHES = (STOCK, OURS)
PRECISIONS = {"fp32": "fp32", "int8": "w8a8"}  # as shown -> as written in results
LINES = {STOCK: "--", OURS: "-"}


def pick_layer(module: tvm.IRModule, shape: str = "") -> ConvLayer:
    """A layer that MetaSchedule is given: the one of a shape, or the 3x3 one with fewest MACs.

    Parameters
    ----------
    module : tvm.IRModule
        fp32 or QDQ Relax.
    shape : str
        As ``lib.kernels`` has it, ``"64x56x56 -> 64x56x56, 3x3"`` say.

    Raises
    ------
    WorkbookError
        If there is no such layer.
    """
    known = {a.shape: a for a in conv_layers(module) if loop_conv2d.applies(a.spec)}
    if shape:
        if shape not in known:
            raise WorkbookError(f"no layer to tune is called {shape!r}: {hint(shape, known)}")
        return known[shape]
    windows = [layer for layer in known.values() if layer.spec.window.kernel == (3, 3)]
    if not windows:
        raise WorkbookError(f"no 3x3 layer to tune: name one of {', '.join(known) or 'none'}")
    return min(windows, key=lambda layer: layer.spec.macs_per_image)


def searched_share(module: tvm.IRModule) -> tuple[float, str]:
    """Share of a network's MACs in layers that MetaSchedule is given, and which others there are.

    Returns
    -------
    tuple of float and str
        Between 0 and 1; the others as ``"1 layer (an image)"``, ``"none"`` where there are none.
    """
    specs = [layer.spec for layer in conv_layers(module)]
    searched = sum(spec.macs_per_image for spec in specs if loop_conv2d.applies(spec))
    others = Counter(filter(None, map(loop_conv2d.why_not, specs)))
    words = (f"{n} layer{'s' if n > 1 else ''} ({why})" for why, n in others.items())
    return searched / sum(spec.macs_per_image for spec in specs), ", ".join(words) or "none"


def curve_lines(
    curves: Mapping[tuple[str, str], Curve], marks: Sequence[int]
) -> list[dict[str, Any]]:
    """A line for each precision and search: the best after so many trials, failures, seconds."""
    return [
        {
            "precision": precision,
            "search": name,
            **{f"best of {mark} (ms)": curve.best_after(mark) for mark in marks},
            "trials": len(curve.ms),
            "failed": curve.ms.count(None),
            "tuning (s)": curve.elapsed_s[-1] if curve.elapsed_s else None,
        }
        for (precision, name), curve in curves.items()
    ]


def keep(run: Run, precision: str, timings: Timings, columns: Mapping[str, Any]) -> list[dict]:
    """Record a layer's times, and return them as lines of a table with the first one's ratio."""
    lines = []
    summary = timings.summary()
    for row in summary:
        low, median, high = (1e3 * row[name] for name in ("ci_low", "median", "ci_high"))
        labels = {**columns, "precision": PRECISIONS[precision], "schedule": row["variant"]}
        run.record(
            metric="layer_latency", value=median, unit="ms", n=row["n"], ci_low=low, ci_high=high,
            **labels,
        )  # fmt: skip
        line = {"precision": precision, "kernel": row["variant"], "median (ms)": median}
        first = summary[0]["variant"]
        if row["variant"] != first:
            ratio = timings.ratio(row["variant"], first)
            interval = f"{ratio.low:.2f} to {ratio.high:.2f}"
            line |= {"over our direct": ratio.value, "95 %": interval, "verdict": ratio.verdict}
        lines.append(line)
    return lines


def curves_figure(
    curves: Mapping[tuple[str, str], Curve], ours: Mapping[str, Mapping[str, float]]
) -> Figure:
    """Best latency against tuning seconds; a panel a precision, our schedules as level lines.

    Parameters
    ----------
    curves : mapping
        (precision, search) -> its curve.
    ours : mapping
        Precision -> name of a schedule of ours -> milliseconds.
    """
    precisions = list(dict.fromkeys(precision for precision, _ in curves))
    figure, panels = pyplot.subplots(1, len(precisions), figsize=(9.2, 3.8), squeeze=False)
    for axes, precision in zip(panels[0], precisions, strict=True):
        colour = COLOURS["fp32" if precision == "fp32" else "int8 graph"]
        for name, style in LINES.items():
            curve = curves.get((precision, name))
            steps = curve.steps() if curve else []
            if not steps:
                continue
            seconds, best = zip(*[*steps, (curve.elapsed_s[-1], steps[-1][1])], strict=True)
            shade = COLOURS["stock TVM"] if name == STOCK else colour
            axes.step(seconds, best, style, where="post", color=shade, label=name)
        for index, (name, ms) in enumerate(ours.get(precision, {}).items()):
            style = (":", "-.")[index % 2]
            axes.axhline(ms, color="black", linestyle=style, label=name)
        axes.set(title=precision, xlabel="seconds of tuning", ylabel="best (ms)", yscale="log")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5, 7)))
        axes.yaxis.set_major_formatter("{x:g}")  # 0.5, not a power of ten
        axes.yaxis.set_minor_formatter("{x:g}")
        if axes.lines:
            axes.legend(fontsize=8)
    return figure
