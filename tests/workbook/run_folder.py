"""The folder of a run that never ran, with everything its report links to."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
from matplotlib.figure import Figure

from workbook import export, facts, figures, notes, results, state, store
from workbook.context import notes_file, rows_file

MACHINE = {
    "name": "Toy CPU, 2 cores",
    "cpu": {"model": "Toy CPU", "architecture": "toy64", "features": ["avx2"], "caches": None},
    "cores": {"physical": 2, "logical": 4, "affinity": [0, 1], "quota": None},
    "memory_bytes": 2**33,
    "os": "Toy OS",
    "python": "CPython 3.11",
    "packages": {"numpy": "2"},
    "git": {"revision": "0123456789abcdef", "dirty": True},
    "load": None,
}
BASE = {"notebook": "01_good", "model": "resnet18", "weights": "<own>", "trained": True, "batch": 1,
        "executor": "graph", "machine": "Toy CPU"}  # fmt: skip


def _row(metric, value, unit, **change):
    return {**BASE, "metric": metric, "value": value, "unit": unit, **change}


ROWS = [
    _row("latency", 8.27, "ms", precision="w8a8", ci_low=8.1, ci_high=8.4, n=10),
    _row("top1", 94.05, "%", precision="w8a8", n=2000),
    _row("latency", 13.29, "ms", precision="fp32", batch=1),
    _row(
        "speedup",
        0.00512,
        "x",
        precision="w8a8",
        schedule="nhwc_quantized_interleaved",
        layout="NHWC",
        ci_low=0.00501,
        ci_high=0.00523,
        n=10,
    ),
    _row("latency", 99.0, "ms", precision="fp32", model="resnet50", trained=False),
]


def _notebook_files(folder: Path, name: str) -> None:
    node = nbformat.v4.new_notebook()
    text = "# Title\n\nNext: [fails](02_fails.ipynb), then [needs](03_needs.ipynb)."
    cells = "".join(f"<td>column {i} of a table wider than a phone</td>" for i in range(8))
    table = f"<table><caption>Wide</caption><tbody><tr>{cells}</tr></tbody></table>"
    shown = [
        nbformat.v4.new_output("stream", name="stderr", text=f"a long line {'of words ' * 30}"),
        nbformat.v4.new_output("display_data", {"text/html": table, "text/plain": "Wide"}),
    ]
    code = nbformat.v4.new_code_cell("x = 1", outputs=shown)
    node.cells = [nbformat.v4.new_markdown_cell(text), code]
    path = folder / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(node, path)
    export.export(path, name)


def write(folder: Path) -> Path:
    """Write a run's folder without running anything: one notebook good, one failed, one skipped."""
    current = state.State("2026-01-02T03:04:05+00:00", "quick", {"batch": "8"})
    error = {"name": "ValueError", "value": "no <b>way</b>", "cell": 3, "source": "raise <x>"}
    current.notebooks = {
        "01_good": state.Entry(state.OK, "Good & <fast>", {"batch": 8}, "f", 61.0),
        "02_fails": state.Entry(state.FAILED, "Fails", {}, "f", 2.0, error=error),
        "03_needs": state.Entry(state.SKIPPED, "Needs", reason="needs 02_fails, which failed"),
    }
    for name in ("01_good", "02_fails"):
        _notebook_files(folder, name)
        store.start(rows_file(folder, name))
    for row in ROWS:
        store.append(rows_file(folder, "01_good"), row)
    half = {**ROWS[0], "notebook": "02_fails", "value": 77.7}
    store.append(rows_file(folder, "02_fails"), half)
    said = notes_file(folder, "01_good")
    line = {"text": "8.27 < 13.29", "metrics": ["latency", "speedup"], "where": {}}
    line["label"] = "partly untrained"
    notes.put(said, "headlines", "a", line)
    drawn = Figure(figsize=(4, 2))
    drawn.add_subplot().bar(["fp32", "w8a8"], [13.29, 8.27])
    figures.save(drawn, folder / "figures", "01_good-bars")
    figure = {"png": "01_good-bars.png", "svg": "01_good-bars.svg", "caption": "Bars. Toy; n = 10."}
    notes.put(said, "figures", "01_good-bars", figure)
    current.save(folder)
    results.merge(folder, current)
    about = {"machine": MACHINE, "load": {"before": [0.1, 0.2, 0.3], "after": None}}
    (folder / facts.FILE).write_text(json.dumps(about))
    (folder / "tables").mkdir()
    (folder / "tables" / "01_good-times.csv").write_text("a\n1\n")
    notes.put(said, "tables", "01_good-times", {"file": "01_good-times.csv", "caption": "Times"})
    return folder
