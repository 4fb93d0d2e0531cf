"""One network batch by batch: time, memory in a fresh process, and the machine's limits beside it.

Only calls of the library, rows of the store and lines of tables.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import relaxquant as rq
from relaxquant import measure, zoo
from relaxquant.inspect import LayerBound, layer_bounds
from workbook import fresh, latency

if TYPE_CHECKING:
    import tvm

    from relaxquant.measure import Peak, PeakMemory, Timings
    from workbook.context import Run

MIB = 2**20
CALIBRATION_BATCH = 8
WRITTEN = {"fp32": "fp32", "int8": "w8a8"}  # precisions as they are recorded
STUDY_CORES = 8  # of the machine that the study measured on


def quantized(net: zoo.Network, calibration: int, seed: int) -> dict[str, tvm.IRModule]:
    """A network in fp32 and int8, its batch symbolic: quantized once, for every batch alike."""
    example = net.example_input(2, seed)
    module = rq.frontends.from_torch(net.model, example, dynamic_batch=True)
    images = zoo.calibration_images(net, calibration, seed)
    batches = list(images.batches(CALIBRATION_BATCH))
    return {"fp32": module, "int8": rq.quantize(module, rq.QConfig.best(), calibration=batches)}


@dataclass(frozen=True)
class Batch:
    """What one batch size gave, by precision where it is a mapping."""

    size: int
    libraries: Mapping[str, rq.Library]
    timings: Timings
    memory: Mapping[str, PeakMemory]
    empty: int
    speedup: str

    def network_bytes(self, precision: str) -> int:
        """Peak memory above that of a process without a network."""
        return self.memory[precision].peak_bytes - self.empty

    def per_image_ms(self, precision: str) -> float:
        """Median milliseconds an image."""
        return self.timings.median(precision) * 1e3 / self.size

    def lines(self) -> list[dict[str, Any]]:
        """A line of the table for each precision."""
        return [
            {
                "batch": self.size,
                "precision": WRITTEN[precision],
                "batch (ms)": self.timings.median(precision) * 1e3,
                "image (ms)": self.per_image_ms(precision),
                "images/s": 1e3 / self.per_image_ms(precision),
                "peak memory (MiB)": memory.peak_bytes / MIB,
                "of it the network (MiB)": self.network_bytes(precision) / MIB,
                "weights (MiB)": self.libraries[precision].memory.weight_bytes / MIB,
                "planned activations (MiB)": self.libraries[precision].memory.activations / MIB,
            }
            for precision, memory in self.memory.items()
        ]


def measured(
    run: Run,
    net: zoo.Network,
    modules: Mapping[str, tvm.IRModule],
    size: int,
    settings: Mapping[str, Any],
    rounds: int,
    seed: int,
    empty: int,
) -> Batch:
    """Compile, check, time and weigh fp32 and int8 at one batch size, and record the rows.

    Parameters
    ----------
    run : workbook.context.Run
        Where the rows go: ``latency``, ``throughput``, ``peak_memory``, ``network_memory``,
        ``weights``, ``activations``, and the ``speedup`` of int8 over fp32.
    net : relaxquant.zoo.Network
        The network.
    modules : mapping
        As `quantized` gives them.
    size : int
        Images in one inference.
    settings : mapping
        Further arguments of `relaxquant.compile`.
    rounds, seed : int
        Of the interleaved timing.
    empty : int
        As `empty_process` gives it.
    """
    libraries = {
        precision: rq.compile(module, batch=size, **settings)
        for precision, module in modules.items()
    }
    x = net.example_input(size, seed).numpy()
    variants = {precision: partial(library, x) for precision, library in libraries.items()}
    check = partial(_same_for_every_image, x, variants)
    timings = measure.interleaved(variants, rounds=rounds, seed=seed, check=check)
    memory = {p: fresh_memory(library, x.shape) for p, library in libraries.items()}
    common = {"model": net.name, "weights": net.weights, "trained": net.trained, "batch": size}
    columns = {p: common | {"precision": WRITTEN[p], "executor": "graph"} for p in libraries}
    latency.keep(run, timings, columns)
    _, words = latency.keep_speedup(run, timings, "int8", "fp32", columns["int8"])
    batch = Batch(size, libraries, timings, memory, empty, words)
    _record(run, batch, columns)
    return batch


def _same_for_every_image(x: np.ndarray, variants: Mapping[str, Any], name: str, output) -> None:
    """An image's logits must not depend on its place in the batch."""
    turned = np.ascontiguousarray(x[::-1])
    library = variants[name].func
    np.testing.assert_allclose(library(turned)[::-1], output, rtol=0, atol=1e-5 * np.ptp(output))


def _record(run: Run, batch: Batch, columns: Mapping[str, Mapping[str, Any]]) -> None:
    units = {
        "images/s": ("throughput", "images/s"),
        "peak memory (MiB)": ("peak_memory", "MiB"),
        "of it the network (MiB)": ("network_memory", "MiB"),
        "weights (MiB)": ("weights", "MiB"),
        "planned activations (MiB)": ("activations", "MiB"),
    }
    for labels, line in zip(columns.values(), batch.lines(), strict=True):
        for column, (metric, unit) in units.items():
            run.record(metric=metric, value=line[column], unit=unit, **labels)


def fresh_memory(library: rq.Library, shape: tuple[int, ...]) -> PeakMemory:
    """Peak memory, while it runs, of a process that loaded an exported library."""
    with tempfile.TemporaryDirectory(prefix="batches_") as folder:
        path = library.export(Path(folder, "network.so"))
        return measure.peak_memory(fresh.run, shape, setup=partial(fresh.load, str(path)))


def empty_process() -> int:
    """Bytes of a process without a network: Python, TVM's runtime and this library."""
    return measure.peak_memory(fresh.nothing).peak_bytes


def limits(run: Run, peak: Peak) -> list[dict[str, Any]]:
    """Record the machine's limits (``peak``, ``read_bandwidth``), and return them as a table."""
    for (name, threads), rate in peak.gmacs.items():
        run.record(
            metric=f"peak, {name}, {threads} threads",
            value=rate,
            unit="GMAC/s",
            precision="fp32" if name == measure.peak.FP32 else "int8",
        )
    for threads, rate in peak.read_gbs.items():
        run.record(metric=f"read bandwidth, {threads} threads", value=rate, unit="GB/s")
    table = []
    for name in peak.instructions:
        rates = {f"{n} threads (GMAC/s)": peak.rate(name, n) for n in peak.threads}
        table.append({"instructions": name, **rates, "MACs a byte at balance": peak.balance(name)})
    return table


@dataclass(frozen=True)
class Bound:
    """The roofline of a whole network at one batch size and precision."""

    size: int
    precision: str
    layers: list[LayerBound]

    @property
    def limit_ms(self) -> float:
        """Least milliseconds for the batch, layer by layer."""
        return 1e3 * sum(layer.seconds for layer in self.layers)

    @property
    def memory_share(self) -> float:
        """Part of that limit in layers that memory bounds, 0 to 1."""
        bound = sum(layer.seconds for layer in self.layers if layer.by_memory)
        return 1e3 * bound / self.limit_ms


def bounds(modules: Mapping[str, tvm.IRModule], peak: Peak, size: int) -> list[Bound]:
    """The roofline of fp32 and int8 at one batch size."""
    return [Bound(size, p, layer_bounds(module, peak, size)) for p, module in modules.items()]


def bound_lines(found: Mapping[int, list[Bound]], results: list[Batch]) -> list[dict[str, Any]]:
    """Measured time beside the roofline, a line for each batch size and precision."""
    lines = []
    for batch in results:
        for bound in found[batch.size]:
            taken = batch.timings.median(bound.precision) * 1e3
            lines.append(
                {
                    "batch": batch.size,
                    "precision": WRITTEN[bound.precision],
                    "measured (ms)": taken,
                    "roofline (ms)": bound.limit_ms,
                    "reached (%)": 100 * bound.limit_ms / taken,
                    "layers beyond the cache": sum(not b.fits_cache for b in bound.layers),
                    "layers bound by memory": sum(b.by_memory for b in bound.layers),
                    "memory's share of the limit (%)": 100 * bound.memory_share,
                }
            )
    return lines


def turning_point(found: Mapping[int, list[Bound]], precision: str) -> str:
    """From which batch size on memory bounds a layer, in words."""
    for size, by_precision in found.items():
        bound = next(b for b in by_precision if b.precision == precision)
        slow = [layer for layer in bound.layers if layer.by_memory]
        if slow:
            share = 100 * bound.memory_share
            return f"from batch {size} on ({len(slow)} layers, {share:.0f} % of the limit)"
    return f"at no batch size up to {max(found)}"


def published_lines(table: pd.DataFrame, macs: int, peak: Peak) -> list[dict[str, Any]]:
    """The study's latencies, and the rates they would need for the whole batch and for one image.

    Parameters
    ----------
    table : pandas.DataFrame
        ``table3`` of the published figures.
    macs : int
        Multiply-accumulates of one image.
    peak : Peak
        Of this machine; what eight of its cores could do at most stands beside the rates.
    """
    precisions = {"fp32": "fp32", "w8a8": "int8"}
    lines = []
    for row in table[table["metric"] == "latency"].to_dict("records"):
        image = macs / (row["value"] * 1e-3) / 1e9
        eight = STUDY_CORES * peak.fastest(precisions[row["precision"]], threads=1)
        lines.append(
            {
                "batch": row["batch"],
                "precision": row["precision"],
                "published (ms)": row["value"],
                "GMAC/s if for one image": image,
                "GMAC/s if for the batch": image * row["batch"],
                "8 cores of this machine (GMAC/s)": eight,
                "batch, times those 8 cores": image * row["batch"] / eight,
            }
        )
    return lines


def ratio_lines(table: pd.DataFrame, results: list[Batch]) -> list[dict[str, Any]]:
    """int8 over fp32, published and ours: time of an image, peak memory, weights."""
    values = {
        (row["batch"], row["precision"], row["metric"]): row["value"]
        for row in table.to_dict("records")
    }
    lines = [
        {
            "batch": size,
            "published, time": values[size, "w8a8", "latency"] / values[size, "fp32", "latency"],
            "published, memory": values[size, "w8a8", "memory"] / values[size, "fp32", "memory"],
        }
        for size in sorted(set(table["batch"]))
    ]
    ours = {batch.size: _ratios(batch) for batch in results}
    known = {line["batch"] for line in lines}
    lines += [{"batch": size} for size in ours if size not in known]
    return [line | ours.get(line["batch"], {}) for line in sorted(lines, key=lambda x: x["batch"])]


def _ratios(batch: Batch) -> dict[str, float]:
    used = {precision: library.memory for precision, library in batch.libraries.items()}
    return {
        "ours, time": batch.timings.ratio("int8", "fp32").value,
        "ours, memory": batch.memory["int8"].peak_bytes / batch.memory["fp32"].peak_bytes,
        "ours, memory of the network": batch.network_bytes("int8") / batch.network_bytes("fp32"),
        "ours, weights": used["int8"].weight_bytes / used["fp32"].weight_bytes,
        "ours, planned activations": used["int8"].activations / used["fp32"].activations,
    }
