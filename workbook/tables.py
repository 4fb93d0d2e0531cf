"""Short tables that read well: units in the headers, few digits, untrained weights labelled."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

MEASURE = ("metric", "value", "unit", "ci_low", "ci_high")
SETTING = ("model", "weights", "batch", "layout", "schedule", "precision", "executor")
DASH = "–"


def to_frame(data: pd.DataFrame | Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a table to show: result rows are spread out, one column a metric with its unit.

    Parameters
    ----------
    data : pandas.DataFrame or sequence of mappings
        A table of any columns, or result rows (those with metric, value and unit).

    Returns
    -------
    pandas.DataFrame
        Result rows become ``model | ... | latency (ms) | 95 % interval (ms) | n``, without the
        columns notebook and machine and those that are empty; any other table stays as it is.
        In both ``trained`` is folded into ``weights``.
    """
    frame = pd.DataFrame(data).reset_index(drop=True)
    if {"metric", "value", "unit"} <= set(frame.columns):
        frame = _spread(frame)
    return label_untrained(frame)


def fold_constants(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Take columns that say the same on every line out of the table and into its caption.

    Parameters
    ----------
    frame : pandas.DataFrame
        Of two lines or more; a single line stays as it is.

    Returns
    -------
    pandas.DataFrame
        Without those of the columns model, weights, batch, layout, schedule, precision and
        executor that are constant.
    str
        What they say, ``"resnet18, batch 1"`` say.
    """
    said = [c for c in SETTING if c in frame.columns and frame[c].nunique(dropna=False) == 1]
    if len(frame) < 2 or len(said) == len(frame.columns):
        return frame, ""
    words = {"batch": "batch {}", "weights": "{} weights"}
    texts = [words.get(c, "{}").format(frame[c].iloc[0]) for c in said]
    return frame.drop(columns=said), ", ".join(texts)


def untrained(trained: Any) -> str:
    """What stands behind a network's name: ``" (untrained)"`` where its weights are random.

    Parameters
    ----------
    trained : bool or None
        As a result row has it: None of what has no weights.
    """
    return " (untrained)" if trained is False else ""


def label_untrained(frame: pd.DataFrame) -> pd.DataFrame:
    """Fold ``trained`` into ``weights``: *untrained* is read where the weights are read."""
    if "trained" not in frame.columns:
        return frame
    frame = frame.copy()
    random = frame["trained"].map(lambda flag: not pd.isna(flag) and not flag)
    if random.any():
        weights = frame["weights"] if "weights" in frame.columns else pd.Series("", frame.index)
        names = weights.fillna("").astype(str)
        labelled = names.where(names.str.contains("untrained"), names + untrained(False))
        frame["weights"] = names.where(~random, labelled.str.strip())
    return frame.drop(columns="trained")


def number(value: Any, digits: int = 3) -> str:
    """Return a value as a table shows it: `digits` significant ones, never an exponent.

    Examples
    --------
    >>> number(8.2712), number(2127.4), number(64), number(0.00123), number(None)
    ('8.27', '2127', '64', '0.00123', '–')
    """
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return DASH
    if isinstance(value, bool | str) or not isinstance(value, float):
        return str(value)
    if value == 0:
        return "0"
    # A negative count of decimals would round away digits that were measured.
    exponent = int(f"{abs(value):e}".split("e")[1])
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def styled(frame: pd.DataFrame, caption: str, digits: int = 3) -> Styler:
    """Return `frame` as a captioned HTML table; text is escaped.

    Parameters
    ----------
    frame : pandas.DataFrame
        Units belong in the headers.
    caption : str
        One sentence above the table; what all lines have in common is added to it.
    digits : int
        Significant digits of floats.
    """
    frame, common = fold_constants(frame)
    full = f"{caption.rstrip('. ')} ({common})" if common else caption
    # A name made from the caption, not a random one: the same run gives the same file.
    style = Styler(frame, uuid=hashlib.sha256(full.encode()).hexdigest()[:8], cell_ids=False)
    style = style.hide(axis="index").set_caption(html.escape(full, quote=False))
    for column in frame.columns:
        style = style.format(_formatter(str(column), digits), subset=[column])
    style = style.format_index(lambda name: _escaped(str(name)), axis="columns")
    style = style.set_table_attributes('class="workbook-table"')
    style = style.set_table_styles(
        [
            {"selector": "caption", "props": "text-align:left; padding:0.4em 0; font-weight:600"},
            {"selector": "th, td", "props": "text-align:left; vertical-align:top"},
            {"selector": "th", "props": "vertical-align:bottom"},
        ]
    )
    right = [{"selector": "", "props": "text-align:right"}]
    numeric = [c for c in frame.columns if pd.api.types.is_numeric_dtype(frame[c])]
    return style.set_table_styles(dict.fromkeys(numeric, right), overwrite=False)


def _spread(rows: pd.DataFrame) -> pd.DataFrame:
    """Put metrics side by side: rows that agree in everything else become one line."""
    rows = rows.astype(object).where(rows.notna(), None)
    keys = [c for c in rows.columns if c not in (*MEASURE, "notebook", "machine", "n")]
    several = rows["metric"].nunique() > 1
    lines: dict[tuple, dict[str, Any]] = {}
    for record in rows.to_dict("records"):
        identity = {key: record[key] for key in keys}
        cells = _measure(record, f"{record['metric']} " if several else "")
        repeat = 0
        # The same thing measured twice is two lines, not one that hides the other.
        while cells.keys() & lines.get((repeat, *identity.values()), {}).keys():
            repeat += 1
        lines.setdefault((repeat, *identity.values()), identity).update(cells)
    return _whole(pd.DataFrame(list(lines.values())).dropna(axis="columns", how="all"))


def _whole(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep whole numbers whole where a column has gaps, which pandas would fill with floats."""
    counts = [c for c in frame.columns if c in ("batch", "n") or c.endswith(" n")]
    return frame.astype(dict.fromkeys(counts, "Int64"))


def _measure(record: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    unit = f" ({record['unit']})" if record["unit"] else ""
    cells = {f"{record['metric']}{unit}": record["value"]}
    if record.get("ci_low") is not None:
        show = _formatter(unit)
        interval = f"{show(record['ci_low'])}{DASH}{show(record['ci_high'])}"
        cells[f"{prefix}95 % interval{unit}"] = interval
    if record.get("n") is not None:
        cells[f"{prefix}n"] = record["n"]
    return cells


def _formatter(header: str, digits: int = 3) -> Callable[[Any], str]:
    """Return how a column is printed: per cents with a digit more, since 94.05 and 93.97 differ."""
    shown = digits + 1 if "(%)" in header else digits
    return lambda value: _escaped(number(value, shown))


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)
