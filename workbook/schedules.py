"""Every row of the schedule table on one network: times, ideals, and which effects multiply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import relaxquant as rq
from relaxquant.errors import InputError
from relaxquant.kernels.ideal import ideal_speedup
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.registry import AUTO, check_schedule, cpu_rows, layout_of
from relaxquant.kernels.spec import NHWC
from relaxquant.measure import Ratio, bootstrap_median
from workbook import latency
from workbook.experiment import Pair

if TYPE_CHECKING:
    from relaxquant.measure import Peak, Timings

REFERENCE = "reference"  # scalar loops: nothing to compare with
BASE_SCHEDULE = "nchw_spatial_pack"
BASE = f"{BASE_SCHEDULE} fp32"
WRITTEN = {"fp32": "fp32", "int8": "w8a8"}  # precisions as they are recorded


@dataclass(frozen=True)
class Variant:
    """A schedule in one precision, asked for in the whole network."""

    schedule: str
    precision: str

    @property
    def name(self) -> str:
        """Unique among the variants."""
        return f"{self.schedule} {self.precision}"

    @property
    def layout(self) -> str:
        """Layout of the network's feature maps."""
        return layout_of(self.schedule)

    @property
    def columns(self) -> dict[str, str]:
        """Columns of its result rows."""
        return {
            "schedule": self.schedule,
            "layout": self.layout,
            "precision": WRITTEN[self.precision],
            "executor": "graph",
        }


def variants(wanted: Sequence[str] = ()) -> list[Variant]:
    """Schedules of the table in each of their precisions, and what the rules choose.

    Parameters
    ----------
    wanted : sequence of str
        Names of schedules; none means all for CPUs but the scalar reference. The one that all
        others are compared with is always there.

    Raises
    ------
    relaxquant.InputError
        If no schedule has such a name.
    """
    for name in wanted:
        check_schedule(name)
    names = {*wanted, BASE_SCHEDULE} if wanted else {row.name for row in cpu_rows()} - {REFERENCE}
    rows = [row for row in cpu_rows() if row.name in names]
    found = {Variant(row.name, p) for row in rows for p in WRITTEN if p in row.precisions}
    ordered = sorted(
        found,
        key=lambda v: (v.layout == NHWC, v.schedule != BASE_SCHEDULE, v.schedule, v.precision),
    )
    return [*ordered, Variant(AUTO, "fp32"), Variant(AUTO, "int8")]


def compile_all(
    pair: Pair, chosen: Sequence[Variant], settings: Mapping[str, Any]
) -> dict[str, rq.Library]:
    """Compile a network with each variant's schedule; name -> library."""
    modules = {"fp32": pair.fp32, "int8": pair.int8}
    return {
        variant.name: rq.compile(modules[variant.precision], schedule=variant.schedule, **settings)
        for variant in chosen
    }


def ideal(variant: Variant, target: str) -> float:
    """The schedule's ideal speedup over a scalar fp32 multiply-add; nan where it has none."""
    isa = instruction_set(rq.target.resolve(target))
    try:
        return ideal_speedup(variant.schedule, isa, variant.precision)
    except InputError:
        return float("nan")


def table2(
    published: pd.DataFrame,
    chosen: Sequence[Variant],
    timings: Timings,
    macs: int,
    peak: Peak,
    target: str,
) -> list[dict[str, Any]]:
    """The study's Table 2 beside ours, a line for each variant.

    What was reached is the rate of the whole network over that of a scalar fp32 multiply-add,
    which is the measured fp32 peak over its lanes; so it is in the unit of the ideal.

    Parameters
    ----------
    published : pandas.DataFrame
        ``table2`` of the published figures.
    chosen : sequence of Variant
        What was timed.
    timings : relaxquant.measure.Timings
        By the variants' names.
    macs : int
        Multiply-accumulates of one inference, counted as direct convolution.
    peak : Peak
        Limits of this machine.
    target : str
        Whose instruction set the ideals are for.
    """
    lanes = instruction_set(rq.target.resolve(target)).lanes
    scalar = peak.fastest("fp32") / lanes
    theirs = {
        (row["schedule"], row["precision"], row["metric"]): row["value"]
        for row in published.to_dict("records")
    }
    base = theirs["nchw_spatial_pack", "fp32", "latency"]
    lines = []
    for variant in chosen:
        key = (variant.schedule, WRITTEN[variant.precision])
        seconds = timings.median(variant.name)
        best, reached = ideal(variant, target), macs / seconds / 1e9 / scalar
        lines.append(
            {
                "layout": variant.layout,
                "schedule": variant.schedule,
                "precision": WRITTEN[variant.precision],
                "published (ms)": theirs.get((*key, "latency")),
                "published, of the first": theirs.get((*key, "latency"), float("nan")) / base,
                "published ideal (x)": theirs.get((*key, "ideal_speedup")),
                "ours (ms)": seconds * 1e3,
                "ours, of the first": timings.ratio(variant.name, BASE).value,
                "ideal (x)": best,
                "reached (x)": reached,
                "reached (%)": 100 * reached / best,
            }
        )
    return lines


@dataclass(frozen=True)
class Effects:
    """Two changes to a base, each alone and both together; all names of variants."""

    what: str
    first: str
    second: str
    both: str


EFFECTS = (
    Effects(
        "layout and precision",
        "nhwc_spatial_pack fp32",
        "nchw_spatial_pack int8",
        "nhwc_quantized_interleaved int8",
    ),
    Effects(
        "Winograd and precision",
        "nchw_winograd fp32",
        "nchw_spatial_pack int8",
        "nchw_winograd_int int8",
    ),
)


def interaction(timings: Timings, effects: Effects) -> Ratio:
    """Time with both changes over the time that their two ratios predict; 1: they multiply.

    Paired by round, with a bootstrap interval, as `Timings.ratio`.
    """
    samples = [timings.of(n) for n in (effects.both, BASE, effects.first, effects.second)]
    both, base, first, second = samples
    ratios = both * base / (first * second)
    low, high = bootstrap_median(ratios)
    return Ratio(float(np.median(ratios)), low, high, ratios.size, 0.95)


def effect_lines(timings: Timings, published: pd.DataFrame) -> list[dict[str, Any]]:
    """Whether effects multiply, a line for each pair that was timed, and the study's own."""
    times = {
        f"{row['schedule']} {'fp32' if row['precision'] == 'fp32' else 'int8'}": row["value"]
        for row in published.to_dict("records")
        if row["metric"] == "latency"
    }
    lines = []
    for effects in EFFECTS:
        names = {BASE, effects.first, effects.second, effects.both}
        if names <= times.keys():
            first, second, both = (
                times[name] / times[BASE] for name in (effects.first, effects.second, effects.both)
            )
            lines.append(_line("published", effects, first, second, both, both / (first * second)))
        if names <= set(timings.names):
            ratio = interaction(timings, effects)
            first, second, both = (
                timings.ratio(name, BASE).value
                for name in (effects.first, effects.second, effects.both)
            )
            words = {"inconclusive": "they multiply, within noise"}
            verdict = words.get(ratio.verdict, "they do not multiply")
            line = _line("ours", effects, first, second, both, ratio.value)
            interval = latency.bounds(ratio)
            lines.append(line | {"95 %": interval, "verdict": verdict})
    return lines


def _line(whose: str, effects: Effects, first, second, both, over) -> dict[str, Any]:
    return {
        "effects": effects.what,
        "whose": whose,
        "the first alone": first,
        "the second alone": second,
        "product": first * second,
        "both, measured": both,
        "measured / product": over,
    }


def tuned_lines(tuned: rq.Tuned, library: rq.Library) -> list[dict[str, Any]]:
    """What tuning chose for each distinct layer of a compiled network."""
    shapes = {record.shape for record in library.kernels if record.macs}
    return [
        {
            "layer": choice.layer,
            "schedule": choice.schedule,
            "tile": choice.tile,
            "timed": choice.candidates,
            "times as fast as the rule's": choice.speedup,
            "why": choice.reason.removeprefix("tuned: "),
        }
        for choice in tuned.choices.values()
        if choice.layer in shapes
    ]
