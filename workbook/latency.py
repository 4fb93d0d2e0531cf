"""From a timing run to result rows and the table that shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from relaxquant.measure import Ratio, Timings
    from workbook.context import Run

MILLISECONDS = 1e3


def keep(run: Run, timings: Timings, columns: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Record the median latency of every variant that has columns, and return them as a table.

    Parameters
    ----------
    run : workbook.context.Run
        Where the rows go.
    timings : relaxquant.measure.Timings
        An interleaved run.
    columns : mapping
        Variant -> columns of its rows: ``model``, ``trained``, ``precision``, ``executor`` ...

    Returns
    -------
    pandas.DataFrame
        One row a variant: median, interval and inter-quartile range in ms, and n.
    """
    rows = [row for row in timings.summary() if row["variant"] in columns]
    for row in rows:
        ends = _interval(row["ci_low"] * MILLISECONDS, row["ci_high"] * MILLISECONDS)
        latency = row["median"] * MILLISECONDS
        labels = columns[row["variant"]]
        run.record(metric="latency", value=latency, unit="ms", n=row["n"], **ends, **labels)
    frame = pd.DataFrame(rows).set_index("variant")
    table = frame[["median", "ci_low", "ci_high", "iqr"]] * MILLISECONDS
    table.columns = ["median (ms)", "95 % low (ms)", "95 % high (ms)", "IQR (ms)"]
    return table.assign(n=frame["n"]).reset_index()


def keep_speedup(
    run: Run, timings: Timings, fast: str, slow: str, columns: Mapping[str, Any]
) -> tuple[float, str]:
    """Record how many times faster ``fast`` is than ``slow``, paired by round.

    Returns
    -------
    tuple of float and str
        The speedup, and it in words with its interval (``"3.5x (3.4 to 3.6, n=10)"``), or
        "inconclusive" in the words where the interval spans 1.
    """
    ratio = timings.ratio(slow, fast)
    keep_ratio(run, "speedup", ratio, columns)
    words = f"{ratio.value:.2f}x ({bounds(ratio)}, n={ratio.n})"
    return ratio.value, words + (", inconclusive" if ratio.verdict == "inconclusive" else "")


def keep_ratio(run: Run, metric: str, ratio: Ratio, columns: Mapping[str, Any]) -> None:
    """Record a paired ratio of times with its interval."""
    ends = _interval(ratio.low, ratio.high)
    run.record(metric=metric, value=ratio.value, unit="x", n=ratio.n, **ends, **columns)


def bounds(ratio: Ratio) -> str:
    """A ratio's interval in words: ``"3.42 to 3.61"``."""
    return f"{ratio.low:.2f} to {ratio.high:.2f}"


def _interval(low: float, high: float) -> dict[str, float]:
    """The interval's columns; none where there were too few rounds for one."""
    if math.isnan(low) or math.isnan(high):
        return {}
    return {"ci_low": low, "ci_high": high}
