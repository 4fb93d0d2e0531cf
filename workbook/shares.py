"""From a share or a paired difference to a result row, in percent or points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relaxquant.measure import PairedDifference, Proportion
    from workbook.context import Run

PERCENT = 100


def keep(run: Run, metric: str, share: Proportion, columns: Mapping[str, Any]) -> None:
    """Record a share with its interval, in percent."""
    bounds = {"ci_low": PERCENT * share.low, "ci_high": PERCENT * share.high}
    run.record(metric=metric, value=PERCENT * share.value, unit="%", n=share.n, **bounds, **columns)


def keep_difference(
    run: Run, change: PairedDifference, columns: Mapping[str, Any], metric: str = "top1"
) -> None:
    """Record a difference of accuracies as ``<metric>_difference``, in points."""
    bounds = {"ci_low": change.low, "ci_high": change.high}
    name = f"{metric}_difference"
    run.record(metric=name, value=change.points, unit="points", n=change.n, **bounds, **columns)


def words(change: PairedDifference) -> str:
    """The difference with its interval: ``"+0.20 (-1.34 to +1.74)"``."""
    return f"{change.points:+.2f} ({change.low:+.2f} to {change.high:+.2f})"
