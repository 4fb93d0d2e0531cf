"""Time and bytes of one network over bit widths, each against 8 bits by direct convolution."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import relaxquant as rq
from relaxquant import measure
from workbook import experiment, latency
from workbook.widths import AUTO, FP32, PLAIN, Subject, Width

if TYPE_CHECKING:
    from relaxquant.measure import Timings
    from workbook.context import Run

DIRECT = "nchw_spatial_pack"
BASE_WIDTH = Width(8, 8)
BASE = f"{BASE_WIDTH.name} direct"
MIB = 2**20


@dataclass(frozen=True)
class Variant:
    """A config and the schedule asked for; fp32 where there is no config."""

    config: rq.QConfig | None
    precision: str
    schedule: str = AUTO

    @property
    def name(self) -> str:
        """Unique among the variants."""
        return self.precision if self.schedule == AUTO else f"{self.precision} direct"


def variants(widths: Sequence[Width]) -> list[Variant]:
    """fp32 and every width by the rules' schedules, and 8 bits by direct convolution."""
    known = list(dict.fromkeys([BASE_WIDTH, *widths]))
    return [
        Variant(None, FP32),
        Variant(BASE_WIDTH.config(), BASE_WIDTH.name, DIRECT),
        *(Variant(width.config(), width.name) for width in known),
    ]


@dataclass(frozen=True)
class Speeds:
    """What was compiled and how long it took, by variant name.

    Attributes
    ----------
    columns : mapping
        Columns of its rows.
    libraries : mapping
        At batch 1.
    timings : relaxquant.measure.Timings
    agreement : mapping
        Share of images on which it gives fp32's top class.
    file_bytes : mapping
        Size of the exported shared library, code and weights.
    """

    columns: Mapping[str, Mapping[str, Any]]
    libraries: Mapping[str, rq.Library]
    timings: Timings
    agreement: Mapping[str, measure.Proportion]
    file_bytes: Mapping[str, int]

    def weight_bytes(self, name: str) -> int:
        """Bytes of all constants as the kernels read them."""
        return self.libraries[name].memory.weight_bytes

    def milliseconds(self, name: str) -> float:
        """Median of one inference."""
        return 1e3 * self.timings.median(name)

    def line(self, name: str, speedup: str) -> dict[str, Any]:
        """A line of the table."""
        line = {
            "precision": name,
            "median (ms)": self.milliseconds(name),
            f"times as fast as {BASE}": speedup,
            "weights (MiB)": self.weight_bytes(name) / MIB,
            f"of {BASE}": self.weight_bytes(name) / self.weight_bytes(BASE),
        }
        if self.file_bytes:
            line["exported file (MiB)"] = self.file_bytes[name] / MIB
            line[f"file, of {BASE}"] = self.file_bytes[name] / self.file_bytes[BASE]
        line["fp32's top class (%)"] = 100 * self.agreement[name].value
        return line


def measured(
    run: Run,
    subject: Subject,
    widths: Sequence[Width],
    *,
    rounds: int,
    seed: int,
    images: int,
    export: bool = True,
) -> tuple[Speeds, list[dict[str, Any]]]:
    """Compile, check, time and weigh a network at every width, and record the rows.

    Before anything is timed, the outputs of every width are compared, bit for bit, with those of
    another schedule, which packs no weights and knows nothing of widths.

    Parameters
    ----------
    run : workbook.context.Run
        Where the rows go: ``latency``, ``speedup`` over 8 bits by direct convolution, ``weights``
        and ``file`` in MiB, ``agreement`` with fp32.
    subject : Subject
        The network.
    widths : sequence of Width
        8 bits are always among them.
    rounds, seed : int
        Of the interleaved timing.
    images : int
        Images of the agreement.
    export : bool
        Whether to export each library and weigh the file.

    Returns
    -------
    Speeds
    list of dict
        The table, a line a variant.
    """
    chosen = variants(widths)
    libraries = {v.name: subject.library(v.config, v.schedule) for v in chosen}
    columns = {v.name: _columns(subject, v) for v in chosen}
    x = subject.net.example_input(1, seed).numpy()
    expected = {v.name: _expected(subject, v, x) for v in chosen}

    def check(name: str, output: np.ndarray) -> None:
        tolerance = 1e-3 * np.abs(expected[name]).max() if name == FP32 else 0
        np.testing.assert_allclose(output, expected[name], rtol=0, atol=tolerance)

    calls = {name: partial(library, x) for name, library in libraries.items()}
    timings = measure.interleaved(calls, rounds=rounds, seed=seed, check=check)
    latency.keep(run, timings, columns)
    same = experiment.agreement(run, subject.net, libraries, columns, images, seed, 1)
    files = {name: exported_bytes(library) for name, library in libraries.items() if export}
    speeds = Speeds(columns, libraries, timings, same, files)
    return speeds, [_recorded(run, speeds, variant.name) for variant in chosen]


def _columns(subject: Subject, variant: Variant) -> dict[str, Any]:
    kind = {"precision": variant.precision, "schedule": variant.schedule, "executor": "graph"}
    return subject.columns | kind | {"batch": 1}


def _expected(subject: Subject, variant: Variant, x: np.ndarray) -> np.ndarray:
    return subject.library(variant.config, PLAIN if variant.config else DIRECT)(x)


def _recorded(run: Run, speeds: Speeds, name: str) -> dict[str, Any]:
    """Record what the table's line says, and return the line."""
    columns = speeds.columns[name]
    words = "1"
    if name != BASE:
        _, words = latency.keep_speedup(run, speeds.timings, name, BASE, columns)
    run.record(metric="weights", value=speeds.weight_bytes(name) / MIB, unit="MiB", **columns)
    if speeds.file_bytes:
        run.record(metric="file", value=speeds.file_bytes[name] / MIB, unit="MiB", **columns)
    return speeds.line(name, words)


def exported_bytes(library: rq.Library) -> int:
    """Size of the one file that a library is exported to."""
    with tempfile.TemporaryDirectory(prefix="widths_") as folder:
        return library.export(Path(folder, "network.so")).stat().st_size


def kernel_lines(speeds: Speeds) -> list[dict[str, Any]]:
    """Which schedule runs each distinct layer, a column a variant; fp32 and the base left out."""
    lines: dict[str, dict[str, Any]] = {}
    for name, library in speeds.libraries.items():
        if name in (FP32, BASE):
            continue
        for record in library.kernels:
            if record.macs:
                line = lines.setdefault(record.shape, {"layer": record.shape})
                line[name] = record.schedule.removeprefix("nchw_") + _not_integer(record)
    return list(lines.values())


def _not_integer(record) -> str:
    return "" if record.precision == "int8" else f" ({record.precision})"


def instruction_lines(speeds: Speeds) -> list[dict[str, Any]]:
    """What multiplies at each width, by its share of the network's multiply-accumulates."""
    lines = []
    for name, library in speeds.libraries.items():
        total = sum(record.macs for record in library.kernels)
        shares: dict[tuple[str, str], int] = {}
        for record in library.kernels:
            if record.macs:
                key = (record.schedule, record.instructions)
                shares[key] = shares.get(key, 0) + record.macs
        lines += [
            {
                "precision": name,
                "schedule": schedule,
                "instructions": instructions,
                "share of the multiply-accumulates (%)": 100 * macs / total,
            }
            for (schedule, instructions), macs in sorted(shares.items(), key=lambda s: -s[1])
        ]
    return lines


def verdict_lines(speeds: Speeds) -> list[dict[str, Any]]:
    """Whether each width is faster than 8 bits by direct convolution, and what there is to say why.

    A width whose layers are multiplied by the same instructions as those of 8 bits can only gain
    what its fewer bytes are worth.
    """
    base = _instructions(speeds.libraries[BASE])
    lines = []
    for name, library in speeds.libraries.items():
        if name in (FP32, BASE):
            continue
        ratio = speeds.timings.ratio(name, BASE)
        own = _instructions(library)
        same = sum(macs for layer, (how, macs) in own.items() if base[layer][0] == how)
        total = sum(macs for _, macs in own.values())
        lines.append(
            {
                "precision": name,
                f"time, of {BASE}": ratio.value,
                "95 %": latency.bounds(ratio),
                "verdict": ratio.verdict,
                f"multiplied as in {BASE} (%)": 100 * same / total,
                "instead": ", ".join(
                    dict.fromkeys(how for layer, (how, _) in own.items() if base[layer][0] != how)
                ),
            }
        )
    return lines


def _instructions(library: rq.Library) -> dict[str, tuple[str, int]]:
    """Schedule with instructions, and multiply-accumulates, by layer."""
    return {
        record.layer: (f"{record.schedule}: {record.instructions}", record.macs)
        for record in library.kernels
        if record.macs
    }
