"""Which way a metric is better, and how its noise is judged: the one table that `compare` reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOWER, HIGHER, NEITHER = -1, 1, 0
# How two values of a metric are told apart; workbook.verdicts has the rule for each.
TIME, RATIO, SHARE, POINTS, MEMORY, BYTES, PLAIN = (
    "time", "ratio of times", "share", "points", "measured memory", "computed bytes", "plain",
)  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """One kind of metric: `kind` says how its noise is judged, `better` which way it is good."""

    kind: str
    better: int


METRICS = {
    "latency": Metric(TIME, LOWER),
    "throughput": Metric(TIME, HIGHER),
    "speedup": Metric(RATIO, HIGHER),
    "time_ratio": Metric(RATIO, LOWER),
    "top1": Metric(SHARE, HIGHER),
    "top5": Metric(SHARE, HIGHER),
    "agreement": Metric(SHARE, HIGHER),
    "top1_agreement": Metric(SHARE, HIGHER),
    "top1_difference": Metric(POINTS, HIGHER),
    "agreement_difference": Metric(POINTS, HIGHER),
    "peak_memory": Metric(MEMORY, LOWER),
    "added_memory": Metric(MEMORY, LOWER),
    "network_memory": Metric(MEMORY, LOWER),
    "activations": Metric(BYTES, LOWER),
    "weights": Metric(BYTES, LOWER),
    "file": Metric(BYTES, LOWER),
}
# A metric without an entry above, by its unit: a time in a notebook of one's own, say.
UNITS = {
    **dict.fromkeys(("s", "ms", "us", "µs", "ns"), Metric(TIME, LOWER)),
    "images/s": Metric(TIME, HIGHER),
    **dict.fromkeys(("B", "KiB", "MiB", "GiB"), Metric(BYTES, LOWER)),
    "points": Metric(POINTS, HIGHER),
}
OTHER = Metric(PLAIN, NEITHER)


def of(row: Mapping[str, Any]) -> Metric:
    """Return what is known of a row's metric.

    A metric may be told apart by words behind a comma (``"top1, sums int16"``). What is in neither
    table, a machine's peak or the noise floor say, has no better side.
    """
    name = row["metric"].split(",")[0].strip()
    return METRICS.get(name) or UNITS.get(row["unit"], OTHER)
