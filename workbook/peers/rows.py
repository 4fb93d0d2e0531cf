"""From a scenario to result rows and to the lines of the benchmark's table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from relaxquant.measure import noise_floor
from relaxquant.measure.samples import AA_SUFFIX
from workbook.peers.compare import Comparison
from workbook.peers.job import Job
from workbook.peers.materials import Materials
from workbook.peers.registry import PEERS, label
from workbook.peers.scenario import Found

MIB = 2**20
CONTROL = label("ours", "w8a8")


def rows(
    found: Found, compared: Sequence[Comparison], materials: Materials, schedule: str
) -> list[dict[str, Any]]:
    """Return the scenario's result rows, without ``notebook`` and ``machine``.

    Latency (ms for a batch), agreement with PyTorch's fp32 (%), peak memory (MiB) of each variant
    and what of it came after the framework's import, ``time_ratio`` of each comparison, and the
    noise floor (%). The thread count stands in ``executor``.
    """
    kept = []
    for row in found.timings.summary():
        name = row["variant"]
        columns = _columns(found.jobs[name], materials, schedule)
        if name.endswith(AA_SUFFIX):
            continue
        bounds = _bounds(row["ci_low"] * 1e3, row["ci_high"] * 1e3)
        latency = {"metric": "latency", "value": row["median"] * 1e3, "unit": "ms"}
        kept.append(columns | latency | bounds | {"n": row["n"]})
        if name in found.agreement:
            share = found.agreement[name]
            bounds = _bounds(100 * share.low, 100 * share.high)
            agreed = {"metric": "agreement", "value": 100 * share.value, "unit": "%"}
            kept.append(columns | agreed | bounds | {"n": share.n})
        for metric, field in (("peak_memory", "peak_bytes"), ("added_memory", "added_bytes")):
            mebibytes = found.about[name][field] / MIB
            kept.append(columns | {"metric": metric, "value": mebibytes, "unit": "MiB"})
    for comparison in compared:
        kept.append(_ratio_row(comparison, materials, schedule))
    floor = noise(found)
    if not math.isnan(floor):
        columns = _columns(found.jobs[CONTROL], materials, schedule)
        kept.append(columns | {"metric": "noise_floor", "value": 100 * floor, "unit": "%"})
    return kept


def noise(found: Found) -> float:
    """The A/A control's noise floor, a fraction; nan where it was not measured."""
    if {CONTROL, CONTROL + AA_SUFFIX} <= set(found.timings.samples):
        return noise_floor(found.timings, CONTROL).floor
    return math.nan


def _ratio_row(comparison: Comparison, materials: Materials, schedule: str) -> dict[str, Any]:
    columns = _columns(comparison.job, materials, schedule)
    columns["executor"] = f"{comparison.first} / {comparison.second}, {_threads(comparison.job)}"
    ratio = comparison.ratio
    value = {"metric": "time_ratio", "value": ratio.value, "unit": "x", "n": ratio.n}
    return columns | value | _bounds(ratio.low, ratio.high)


def _columns(job: Job, materials: Materials, schedule: str) -> dict[str, Any]:
    ours = job.peer == "ours"
    return {
        "model": job.model,
        "weights": materials.weights,
        "trained": materials.trained,
        "batch": job.batch,
        "schedule": (job.schedule or schedule) if ours else "",
        "precision": job.precision,
        "executor": f"{PEERS[job.peer].title}, {_threads(job)}",
    }


def _threads(job: Job) -> str:
    return f"{job.threads} thread{'s' if job.threads > 1 else ''}"


def _bounds(low: float, high: float) -> dict[str, float]:
    return {} if math.isnan(low) or math.isnan(high) else {"ci_low": low, "ci_high": high}


HEADERS = {
    "variant": "variant",
    "ms": "ms a batch (95 %)",
    "agreement": "top-1 as fp32",
    "peak": "peak MiB (net)",
    "ratio": "ratio (95 %)",
    "goal": "goal",
    "verdict": "verdict",
    "instructions": "instructions",
}


def lines(found: Found, compared: Sequence[Comparison]) -> list[dict[str, str]]:
    """Return one table line a variant: its figures, or why it has none.

    A peer's line has the time of ours over its own; a line of ours in int8 that over ours in fp32,
    one of fewer bits that over ours in int8 by direct convolution.
    """
    summary = {row["variant"]: row for row in found.timings.summary()}
    return [_line(name, found, summary, compared) for name in found.jobs]


def _line(name: str, found: Found, summary: dict, compared: Sequence[Comparison]) -> dict[str, str]:
    if name in found.failures:
        return {"variant": name, "reason": found.failures[name]}
    row, about, share = summary[name], found.about[name], found.agreement.get(name)
    peer = found.jobs[name].peer != "ours"
    matches = [c for c in compared if name == (c.second if peer else c.first)]
    matches = [c for c in matches if peer or c.against.startswith("ours")]
    line = {
        "variant": name,
        "ms": _span(row["median"] * 1e3, row["ci_low"] * 1e3, row["ci_high"] * 1e3, 2),
        "agreement": f"{100 * share.value:.0f} % of {share.n}" if share else "",
        "peak": f"{about['peak_bytes'] / MIB:.0f} ({about['added_bytes'] / MIB:.0f})",
        "instructions": about["instructions"],
    }
    if matches:
        (comparison,) = matches
        ratio = comparison.ratio
        line["ratio"] = _span(ratio.value, ratio.low, ratio.high, 3)
        if comparison.at_most is not None:
            line |= {"goal": f"≤ {comparison.at_most:.2f}", "verdict": comparison.verdict}
    return line


def _span(value: float, low: float, high: float, digits: int) -> str:
    bounds = "" if math.isnan(low) else f" ({low:.{digits}f}–{high:.{digits}f})"
    return f"{value:.{digits}f}{bounds}"
