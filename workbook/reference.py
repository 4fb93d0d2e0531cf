"""The reference run: the small part of a run that is kept in git, and the README's figures from it.

    python -m workbook.reference outputs/RUN

copies the results, the facts and the figures that hold no photographs to ``outputs/reference/``,
and writes the README's table from them, so that no figure there is typed by hand.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from workbook.errors import WorkbookError
from workbook.tables import untrained

KEPT = (
    "results.csv",
    "run.json",
    "figures/00_start_here-overview.png",
    "figures/01_fp32_compile-latency.png",
    "figures/02_naive_int8-latency.png",
    "figures/03_graph_int8-table1.png",
    "figures/03_graph_int8-layer_rates.png",
    "figures/04_schedules-rates.png",
    "figures/05_batch_and_memory-time_and_memory.png",
    "figures/06_bit_widths-fronts.png",
    "figures/07_llvm_ir_dtypes-flame.png",
    "figures/08_tflite_accuracy-latency.png",
    "figures/10_report-gain.png",
    "figures/12_tuning-curves.png",
)
START, END = "<!-- reference:start -->", "<!-- reference:end -->"
ROWS = {  # table row -> notebook, executor, precision, schedule (empty: any)
    "PyTorch eager, fp32": ("03_graph_int8", "torch", "fp32", ""),
    "stock TVM, fp32": ("02_naive_int8", "naive", "fp32", ""),
    "stock TVM, int8 (naive)": ("03_graph_int8", "naive", "w8a8", ""),
    "ours, fp32, direct convolution": ("04_schedules", "graph", "fp32", "nchw_spatial_pack"),
    "ours, fp32, schedules by rule": ("04_schedules", "graph", "fp32", "auto"),
    "ours, int8": ("04_schedules", "graph", "w8a8", "auto"),
}


def keep(run: Path, reference: Path, readme: Path) -> None:
    """Copy what is kept of ``run`` to ``reference`` and rewrite the README's block.

    Raises
    ------
    WorkbookError
        If the run lacks one of the files, or the README its markers.
    """
    missing = [name for name in KEPT if not (run / name).is_file()]
    if missing:
        raise WorkbookError(f"{run} lacks {', '.join(missing)}: run all notebooks there first")
    for name in KEPT:
        (reference / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / name, reference / name)
    text = readme.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise WorkbookError(f"{readme.name} has no {START} ... {END} to write between")
    head, tail = text.split(START)[0], text.split(END)[1]
    block = f"{START}\n{markdown(reference)}{END}"
    readme.write_text(head + block + tail, encoding="utf-8")


def markdown(reference: Path) -> str:
    """The README's table and its sentences, from the results and facts kept in ``reference``."""
    results = pd.read_csv(reference / "results.csv")
    facts = json.loads((reference / "run.json").read_text(encoding="utf-8"))
    latencies = {row: _latency(results, *key) for row, key in ROWS.items()}
    ours = latencies["ours, int8"]
    lines = [f"| {_whose(ours)}, batch 1 | ms (95 %) |", "| --- | --- |"]
    for row, found in latencies.items():
        lines.append(
            f"| {row} | {found['value']:.1f} ({found['ci_low']:.1f} to {found['ci_high']:.1f}) |"
        )
    lines += ["", *_sentences(results), "", _origin(results, facts), ""]
    return "\n".join(lines)


def _latency(
    results: pd.DataFrame, notebook: str, executor: str, precision: str, schedule: str
) -> pd.Series:
    wanted = {"metric": "latency", "notebook": notebook, "executor": executor}
    wanted |= {"precision": precision} | ({"schedule": schedule} if schedule else {})
    chosen = results[(results[list(wanted)] == pd.Series(wanted)).all(axis=1)]
    return chosen.iloc[0]


def _sentences(results: pd.DataFrame) -> list[str]:
    direct = _speedup(results, "03_graph_int8")
    best = _speedup(results, "04_schedules")
    sentences = [
        f"- int8 of {_whose(direct)} against our own fp32, both by direct convolution: "
        f"{_interval(direct)} times faster (paired by round).",
        f"- The fastest int8 schedule of {_whose(best)} against the fastest of fp32: "
        f"{_interval(best)} times faster.",
    ]
    for row in _of(results, "03_graph_int8").query("metric == 'top1_difference'").itertuples():
        sentences.append(
            f"- Top-1 of {_whose(row)} in int8 against fp32: {row.value:+.2f} points "
            f"({row.ci_low:+.2f} to {row.ci_high:+.2f}) on {row.n:.0f} images."
        )
    return sentences + _other_notebooks(results)


def _other_notebooks(results: pd.DataFrame) -> list[str]:
    """Few bits beside 8, the share of integers, and TFLite's models beside LiteRT."""
    sentences = []
    few = _of(results, "06_bit_widths").query("metric == 'speedup' and precision == 'w4a4'")
    for row in few.itertuples():
        sentences.append(
            f"- {_whose(row)} in w4a4, its ends in w8a8: {_interval(row)} times faster "
            "than in w8a8, direct."
        )
    proofs = _of(results, "07_llvm_ir_dtypes").query("metric == 'integer_macs'")
    for row in proofs.query("precision == 'w8a8'").itertuples():
        name = "naive int8" if row.executor == "naive" else "our int8"
        sentences.append(
            f"- Multiply-accumulates of {_whose(row)} that {name} does in integers, by its machine "
            f"code: {row.value:.1f} %."
        )
    ratios = _of(results, "08_tflite_accuracy").query("metric == 'time_ratio'")
    for row in ratios[ratios["executor"] == "our int8 / LiteRT"].itertuples():
        sentences.append(
            f"- {row.model}, quantized by TFLite: {_interval(row)} of LiteRT XNNPACK's time."
        )
    return sentences


def _whose(row) -> str:
    return f"{row.model}{untrained(bool(row.trained))}"


def _interval(row) -> str:
    return f"{row.value:.2f} ({row.ci_low:.2f} to {row.ci_high:.2f})"


def _of(results: pd.DataFrame, notebook: str) -> pd.DataFrame:
    return results[results["notebook"] == notebook]


def _speedup(results: pd.DataFrame, notebook: str) -> pd.Series:
    chosen = results.query(
        "metric == 'speedup' and notebook == @notebook and schedule != 'auto, tuned'"
    )
    return chosen.iloc[0]


def _origin(results: pd.DataFrame, facts: dict) -> str:
    threads = facts["parameters"]["03_graph_int8"]["threads"]
    rounds = int(_of(results, "03_graph_int8").query("metric == 'latency'").n.max())
    return (
        f"Medians of {rounds} interleaved rounds, {threads} threads, {results.machine.iloc[0]}; "
        "from the reference run in [outputs/reference](outputs/reference/results.csv)."
    )


def command(doc: str, keep: Callable[[Path, Path, Path], None], folder: str) -> int:
    """Keep the run named on the command line in ``folder``, and rewrite the README."""
    if len(sys.argv) != 2:
        print(doc)
        return 2
    root = Path(__file__).resolve().parent.parent
    try:
        keep(Path(sys.argv[1]), root / folder, root / "README.md")
    except WorkbookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(command(__doc__, keep, "outputs/reference"))
