"""What stock TVM does with each data type: the first stage that fails, its error and its file.

Each type is taken through the stages of `workbook.dtype_stages` in a child process, live, so that
another version of TVM fills the tables anew. A child that dies is a result as well.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbook.dtype_stages import STAGES

if TYPE_CHECKING:
    import pandas as pd

DTYPES = ("int8", "int4", "int2", "int1", "bool", "uint4")
OK = "ok"
TIMEOUT_S = 120


@dataclass(frozen=True)
class Outcome:
    """What one stage did with one data type; ``error`` and ``file`` are empty where it passed."""

    dtype: str
    stage: str
    error: str
    file: str


def probe(dtypes: Sequence[str] = DTYPES, module: str = "workbook.dtype_stages") -> list[Outcome]:
    """Take data types through every stage of stock TVM.

    Parameters
    ----------
    dtypes : sequence of str
        TVM's names.
    module : str
        What a child runs; replaced in tests.

    Returns
    -------
    list of Outcome
        Type by type, stage by stage.
    """
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = pool.map(lambda dtype: _all_stages(dtype, module), dtypes)
    return [outcome for outcomes in found for outcome in outcomes]


def _all_stages(dtype: str, module: str) -> list[Outcome]:
    """Start a child, and another one behind a stage that ended it."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(STAGES):
        fate, lines = _child(dtype, len(outcomes), module)
        outcomes += [Outcome(dtype, **json.loads(line)) for line in lines]
        if len(outcomes) < len(STAGES):
            outcomes.append(Outcome(dtype, list(STAGES)[len(outcomes)], fate, ""))
    return outcomes


def _child(dtype: str, first: int, module: str) -> tuple[str, list[str]]:
    """How a child ended, in words, and the lines it wrote."""
    command = [sys.executable, "-m", module, dtype, str(first)]
    folders = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment
        )
    except subprocess.TimeoutExpired as error:
        return f"no end within {TIMEOUT_S} s", _lines(error.stdout or b"")
    if done.returncode < 0:
        return f"the process died: {signal.Signals(-done.returncode).name}", _lines(done.stdout)
    words = done.stderr.strip().splitlines()
    return f"the process ended: {words[-1] if words else done.returncode}", _lines(done.stdout)


def _lines(text: str | bytes) -> list[str]:
    text = text.decode() if isinstance(text, bytes) else text
    # The last line may be half written by a process that died.
    return [line for line in text.splitlines() if line.startswith("{") and line.endswith("}")]


def stage_table(outcomes: Sequence[Outcome]) -> list[dict[str, str]]:
    """A line for each data type: which stages pass."""
    lines: dict[str, dict[str, str]] = {}
    for outcome in outcomes:
        line = lines.setdefault(outcome.dtype, {"type": outcome.dtype})
        line[outcome.stage] = "fails" if outcome.error else OK
    return list(lines.values())


def first_failures(
    outcomes: Sequence[Outcome], published: pd.DataFrame | None = None
) -> list[dict[str, Any]]:
    """A line for each data type: the first stage that fails, beside what the study found.

    Parameters
    ----------
    outcomes : sequence of Outcome
        As `probe` returns them.
    published : pandas.DataFrame, optional
        ``data_types`` of the published figures.
    """
    lines = []
    for dtype in dict.fromkeys(outcome.dtype for outcome in outcomes):
        failed = [o for o in outcomes if o.dtype == dtype and o.error]
        first = failed[0] if failed else Outcome(dtype, "none", "", "")
        line = {"type": dtype, "first stage that fails": first.stage}
        line |= {"error": first.error, "raised in": first.file}
        lines.append(line | _study(dtype, published))
    return lines


def _study(dtype: str, published: pd.DataFrame | None) -> dict[str, str]:
    if published is None:
        return {}
    rows = published[published["variant"] == dtype].to_dict("records")
    words = "not tried"
    if rows:
        words = "works" if rows[0]["value"] else "fails"
        words += f": {rows[0]['note']}" if isinstance(rows[0]["note"], str) else ""
    return {"in the study (Relay)": words}


def all_failures(outcomes: Sequence[Outcome]) -> list[dict[str, str]]:
    """Every stage that fails, types with the same message in one line."""
    lines: dict[tuple[str, str, str], dict[str, str]] = {}
    for outcome in outcomes:
        if outcome.error:
            # The type's name, its bits and counts make the same message look different.
            text = re.sub(r"\d+", "", outcome.error.replace(outcome.dtype, ""))
            key = (outcome.stage, text, outcome.file)
            known = lines.get(key)
            if known is None:
                lines[key] = {"stage": outcome.stage, "types": outcome.dtype}
                lines[key] |= {"error (of the first)": outcome.error, "raised in": outcome.file}
            else:
                known["types"] += f", {outcome.dtype}"
    order = list(STAGES)
    return sorted(lines.values(), key=lambda line: order.index(line["stage"]))
