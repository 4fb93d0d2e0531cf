"""The figures of the proof: where a network's time goes, and where counted words are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib import pyplot
from matplotlib.patches import Patch

from relaxquant.inspect.timed import NO_MACS
from workbook.figures import colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from relaxquant.inspect.substrings import SubstringCount
    from relaxquant.inspect.timed import TimedProof

# What is multiplied -> role in the palette.
ROLES = {"float32": "fp32", "int8": "int8 graph", "int16": "int8 vm", "look-up": "other"}
OTHERWISE = "#F0E442"  # Okabe and Ito's yellow, which has no role
NOTHING = "#D5D9DC"  # lighter than the palette's greys: no multiply-accumulate
BRIGHT = (OTHERWISE, NOTHING)  # words on these are black
LABELLED = 0.075  # of a bar: narrower segments have no room for words


def precision_colour(precision: str) -> str:
    """Colour of what is multiplied, ``"int8"`` say."""
    if precision == NO_MACS:
        return NOTHING
    return colour(ROLES[precision]) if precision in ROLES else OTHERWISE


def flame(timed: Mapping[str, TimedProof]) -> Figure:
    """One bar a library: its kernel calls in order, as wide as their time, by what they multiply.

    Parameters
    ----------
    timed : mapping
        Library -> its `TimedProof`.
    """
    figure, axes = pyplot.subplots(figsize=(9.6, 1.3 + 0.75 * len(timed)))
    for place, proof in enumerate(timed.values()):
        start = 0.0
        for row in proof.rows:
            share = row.seconds / proof.seconds
            shade = precision_colour(row.precision)
            axes.barh(place, 100 * share, left=100 * start, height=0.62, color=shade, ec="white")
            if share >= LABELLED:
                middle = 100 * (start + share / 2)
                axes.text(
                    middle, place, _words(row.record), ha="center", va="center", fontsize=6,
                    color="black" if shade in BRIGHT else "white",
                )  # fmt: skip
            start += share
        axes.text(100, place, f" {_short(1e3 * proof.seconds)} ms", va="center", fontsize=9)
    axes.set_yticks(range(len(timed)), list(timed))
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    axes.grid(visible=False)
    axes.set_xlabel("share of the kernels' time (%), layers in order; right: all of them")
    found = dict.fromkeys(row.precision for proof in timed.values() for row in proof.rows)
    patches = [Patch(color=precision_colour(name), label=name) for name in found]
    axes.legend(handles=patches, ncols=len(patches), loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _words(record) -> str:
    size = record.shape.removeprefix("-> ").split(" -> ")[0]
    return f"{record.op.removeprefix('nn.')}\n{size}"


def places(counts: Mapping[str, SubstringCount], names: Sequence[str]) -> Figure:
    """One bar a library: the hits of all dtype words, by where in the text they are.

    Parameters
    ----------
    counts : mapping
        Library -> its count.
    names : sequence of str
        Places to tell apart; those without hits are left out.
    """
    figure, axes = pyplot.subplots(figsize=(9.6, 1.3 + 0.5 * len(counts)))
    shown = [name for name in names if any(count.share(name) for count in counts.values())]
    left = [0.0] * len(counts)
    for name, shade in zip(shown, _greys(len(shown)), strict=True):
        widths = [100 * count.share(name) for count in counts.values()]
        axes.barh(list(counts), widths, left=left, color=shade, ec="white", label=name)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, count in enumerate(counts.values()):
        axes.text(100, place, f" {count.total():,} hits", va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    axes.grid(visible=False)
    axes.set_xlabel("share of the hits of all four words (%)")
    axes.legend(ncols=len(shown), loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def _greys(count: int) -> list[str]:
    """Greys from dark to light: where a word stands is no role of the palette."""
    return [str(0.3 + 0.55 * index / max(count - 1, 1)) for index in range(count)]
