"""The benchmark run that is kept in git, and the README's table from it.

    python -m workbook.bench_reference outputs/RUN-bench

copies the rows and the facts to ``outputs/reference/bench/``, and writes the table from them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pandas as pd

from workbook.errors import WorkbookError
from workbook.reference import command

KEPT = ("results.csv", "run.json")
START, END = "<!-- bench:start -->", "<!-- bench:end -->"
COLUMNS = {  # what was divided by what -> heading
    "ours fp32 / ONNX Runtime fp32": "fp32 / ONNX Runtime",
    "ours fp32 / OpenVINO fp32": "fp32 / OpenVINO",
    "ours int8 / ONNX Runtime int8": "int8 / ONNX Runtime",
    "ours int8 / OpenVINO int8": "int8 / OpenVINO",
    "ours int8 / ours fp32": "int8 / fp32, ours",
    "ours int8, direct / ours fp32, direct": "the same, both direct",
    "ours w4a4 / ours int8, direct": "w4a4 / int8 direct, ours",
}
AGREEING = ("ours", "ONNX Runtime", "OpenVINO")  # in the last column


def keep(run: Path, reference: Path, readme: Path) -> None:
    """Copy the run of `make bench` and rewrite the README's block.

    Raises
    ------
    WorkbookError
        If the run is no benchmark's, or the README lacks its markers.
    """
    missing = [name for name in KEPT if not (run / name).is_file()]
    if missing:
        raise WorkbookError(f"{run} lacks {', '.join(missing)}: name a run of `make bench`")
    text = readme.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise WorkbookError(f"{readme.name} has no {START} ... {END} to write between")
    block = f"{START}\n{markdown(run)}{END}"
    reference.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copyfile(run / name, reference / name)
    readme.write_text(text.split(START)[0] + block + text.split(END)[1], encoding="utf-8")


def markdown(run: Path) -> str:
    """The README's table of time ratios, from the rows kept in ``run``."""
    rows = pd.read_csv(run / "results.csv", keep_default_na=False)
    ratios = rows[(rows.notebook == "bench") & (rows.metric == "time_ratio")].copy()
    if ratios.empty:
        raise WorkbookError(f"{run} holds no time ratios: name a run of `make bench`")
    ratios[["what", "threads"]] = ratios.executor.str.rsplit(", ", n=1, expand=True)
    headings = ["", *COLUMNS.values(), f"int8's top-1 as fp32's: {', '.join(AGREEING)}"]
    lines = [f"| {' | '.join(headings)} |", "|" + " --- |" * len(headings)]
    for (model, batch, threads, trained), found in ratios.groupby(
        ["model", "batch", "threads", "trained"], sort=False
    ):
        untrained = "" if str(trained) == "True" else ", untrained"
        cells = [_cell(found[found.what == what]) for what in COLUMNS]
        cells.append(_agreement(rows, model, batch, threads))
        lines.append(f"| {model}{untrained}, batch {batch}, {threads} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _origin(rows), ""])


def _cell(found: pd.DataFrame) -> str:
    if found.empty:
        return "not measured"
    row = found.iloc[0]
    return f"{float(row.value):.2f} ({float(row.ci_low):.2f}–{float(row.ci_high):.2f})"


def _agreement(rows: pd.DataFrame, model: str, batch: object, threads: str) -> str:
    same = (rows.metric == "agreement") & (rows.precision == "w8a8") & rows.model.eq(model)
    same &= rows.batch.eq(batch) & ~rows.schedule.eq("nchw_spatial_pack")
    found = [rows[same & rows.executor.eq(f"{who}, {threads}")] for who in AGREEING]
    shares = [f"{float(part.iloc[0].value):.0f}" if len(part) else "-" for part in found]
    images = {part.iloc[0].n for part in found if len(part)}
    return f"{', '.join(shares)} % of {max(images, default=0)}"


def _origin(rows: pd.DataFrame) -> str:
    return (
        f"Time of ours over time of theirs, below 1 is faster; medians of the rounds' ratios with "
        f"95 % intervals, {rows.machine.iloc[0]}; the rows are in "
        "[outputs/reference/bench](outputs/reference/bench/results.csv)."
    )


if __name__ == "__main__":
    sys.exit(command(__doc__, keep, "outputs/reference/bench"))
