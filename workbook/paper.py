"""The report's "published against ours": the ratios that the paper and this run both have.

Ratios only: the paper's milliseconds are another machine's.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from workbook import headline, paths
from workbook.headline import Cell
from workbook.store import Row
from workbook.tables import number

# Schedules whose speedup is one over another choice of kernels, not one over fp32.
TUNED = "auto, tuned"


@dataclass(frozen=True)
class Claim:
    """One ratio: which published rows it is made of, and which rows of a run.

    Attributes
    ----------
    what : str
        The ratio in words.
    table : str
        File in ``data/published/`` without suffix.
    over, under : dict
        Column -> value of the published rows; of several, the one of the least value counts.
    notebook : str
        Where this run measures it.
    ours : tuple of dict
        Column -> value of this run's row that holds the ratio; or of its two rows, over and under.
    metric : str
        The published rows' metric.
    """

    what: str
    table: str
    over: Mapping[str, str]
    under: Mapping[str, str]
    notebook: str
    ours: tuple[Mapping[str, object], ...]
    metric: str = "latency"


@dataclass
class Line:
    """A claim as it is shown; `ours` is None where this run did not measure it.

    `ratio` is the published one as a number, `measured` ours with the ends of its interval, which
    are nan where the ratio is one of two medians.
    """

    what: str
    place: str
    published: str
    notebook: str
    ratio: float = math.nan
    ours: Cell | None = None
    measured: tuple[float, float, float] | None = None
    accuracy: list[Cell] = field(default_factory=list)
    untrained: bool = False


FP32 = {"framework": "tvm", "precision": "fp32"}
INT8 = {"framework": "tvm", "precision": "w8a8"}
SPEEDUP = {"metric": "speedup", "precision": "w8a8"}


def _by_batch(batch: int) -> tuple[Claim, Claim]:
    over, under = FP32 | {"batch": str(batch)}, INT8 | {"batch": str(batch)}
    book = "05_batch_and_memory"
    memory = {"metric": "peak_memory", "batch": batch, "executor": "graph"}
    return (
        Claim(
            f"time of fp32 / int8, batch {batch}", "table3", over, under, book,
            ({**SPEEDUP, "batch": batch},),
        ),
        Claim(
            f"peak memory of fp32 / int8, batch {batch}", "table3", over, under, book,
            ({**memory, "precision": "fp32"}, {**memory, "precision": "w8a8"}), "memory",
        ),
    )  # fmt: skip


CLAIMS = (
    Claim(
        "time of PyTorch eager / fp32", "table1", {"framework": "pytorch"}, FP32,
        "01_fp32_compile",
        ({"metric": "latency", "executor": "torch"}, {"metric": "latency", "executor": "graph"}),
    ),
    Claim(
        "time of fp32 / int8 without integer kernels", "table1", FP32, INT8 | {"executor": "vm"},
        "02_naive_int8", (SPEEDUP,),
    ),
    Claim(
        "time of fp32 / int8 with integer kernels", "table1", FP32, INT8 | {"executor": "graph"},
        "03_graph_int8", (SPEEDUP,),
    ),
    Claim(
        "time of the fastest fp32 schedule / of the fastest int8 one", "table2", FP32, INT8,
        "04_schedules", (SPEEDUP,),
    ),
    *_by_batch(1), *_by_batch(64), *_by_batch(256),
)  # fmt: skip


def lines(rows: Sequence[Row], notebooks: Iterable[str]) -> list[Line]:
    """Return the claims that belong to a run.

    Parameters
    ----------
    rows : sequence of dict
        All rows of the run.
    notebooks : iterable of str
        The notebooks that ran through: a claim of another is left out, and so is one that the
        run measured on another network than the paper.
    """
    ran = set(notebooks)
    found = [_line(claim, rows) for claim in CLAIMS if claim.notebook in ran]
    return [line for line in found if line is not None]


def sources(table: str = "table1") -> str:
    """Return where the published figures stand, without the table's number."""
    return _published(table)[0]["source"].partition(", Table")[0]


def _line(claim: Claim, rows: Sequence[Row]) -> Line | None:
    table = _published(claim.table)
    over, under = (_least(table, claim.metric, side) for side in (claim.over, claim.under))
    ratio = float(over["value"]) / float(under["value"])
    place = over["source"].rpartition(", ")[2]
    line = Line(claim.what, place, f"{number(ratio)}×", claim.notebook, ratio)
    own = [row for row in rows if row["notebook"] == claim.notebook]
    same = [row for row in own if row["model"] == over["model"]]
    if not same and any(row["model"] for row in own):
        return None
    parts = [_first(same, where) for where in claim.ours]
    if all(parts):
        first, last = parts[0], parts[-1]
        line.ours = headline.cell(first) if len(parts) == 1 else _ratio(first, last)
        line.measured = _numbers(first, last)
        line.accuracy = headline.accuracies(last, rows)
        line.untrained = last["trained"] is False
    return line


def _numbers(over: Row, under: Row) -> tuple[float, float, float]:
    if over is not under:
        return over["value"] / under["value"], math.nan, math.nan
    low, high = (math.nan if over[end] is None else over[end] for end in ("ci_low", "ci_high"))
    return over["value"], low, high


def _ratio(over: Row, under: Row) -> Cell:
    timed = "of medians, not paired" if over["metric"] == "latency" else ""
    return Cell("", f"{number(over['value'] / under['value'])}×", timed)


def _first(rows: Iterable[Row], where: Mapping[str, object]) -> Row | None:
    fitting = (r for r in rows if all(r[c] == v for c, v in where.items()))
    return next((row for row in fitting if row["schedule"] != TUNED), None)


def _least(table: list[dict[str, str]], metric: str, where: Mapping[str, str]) -> dict[str, str]:
    fitting = (r for r in table if r["metric"] == metric and where.items() <= r.items())
    return min(fitting, key=lambda row: float(row["value"]))


def _published(table: str) -> list[dict[str, str]]:
    with (paths.published_dir() / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
