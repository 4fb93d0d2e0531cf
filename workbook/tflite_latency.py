"""How long TFLite models take, ours and LiteRT: interleaved, each in a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from relaxquant.measure import interleaved, noise_floor
from relaxquant.measure.samples import AA_SUFFIX
from workbook import latency, shares
from workbook.errors import WorkbookError
from workbook.peers.registry import PEERS
from workbook.peers.remote import Timed, WorkerError
from workbook.peers.scenario import MIN_SAMPLE_S, PAUSE_S
from workbook.tflite_subject import (
    BY_CHANNEL,
    EXACT,
    FLOAT,
    INT8,
    LITERT,
    OURS,
    STUDIED,
    SYMMETRIC,
    Subject,
)
from workbook.threads import VARIABLES

if TYPE_CHECKING:
    from relaxquant.measure import Timings
    from workbook.context import Run

CONTROL = INT8 + AA_SUFFIX
# What a way is compared with, and what the ratio of its time to that says.
COMPARED = {
    "our int8 / LiteRT": (INT8, LITERT),
    "tflite rounding / LiteRT": (EXACT, LITERT),
    "our int8 / our fp32": (INT8, FLOAT),
    "symmetric / our int8": (SYMMETRIC, INT8),
    "symmetric by channel / our int8": (BY_CHANNEL, INT8),
}
SHOWN = ("our int8 / LiteRT", "tflite rounding / LiteRT", "our int8 / our fp32")


def timed(subject: Subject, threads: int, rounds: int, seed: int) -> Timings:
    """Time a model's ways, `CONTROL` (our int8 a second time) among them.

    Parameters
    ----------
    subject : Subject
        The model; its first image is what is run.
    threads : int
        Of every process.
    rounds, seed : int
        As for `relaxquant.measure.interleaved`.

    Raises
    ------
    WorkbookError
        If a process fails, or answers otherwise than the same way did in this one.
    """
    children: dict[str, Timed] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, path in _files(subject, Path(folder)).items():
                children[name] = _child(name, path, Path(folder, "input.npy"), threads)
            for name, child in children.items():
                _check(subject, name, child)
            return interleaved(
                children, rounds=rounds, seed=seed, min_sample_s=MIN_SAMPLE_S, pause_s=PAUSE_S
            )
        finally:
            for child in children.values():
                child.close()


def _files(subject: Subject, folder: Path) -> dict[str, Path]:
    """Each way's file, and the input beside them."""
    np.save(folder / "input.npy", subject.inputs[0])
    files = {LITERT: subject.model.path}
    for number, name in enumerate(OURS):
        files[name] = folder / f"{number}.so"
        subject.libraries[name].export(files[name])
    return files | {CONTROL: files[INT8]}


def _child(name: str, path: Path, data: Path, threads: int) -> Timed:
    environment = dict.fromkeys(VARIABLES, str(threads))
    if name != LITERT:
        environment |= PEERS["ours"].environment
    first = {"path": str(path), "litert": name == LITERT, "input": str(data), "threads": threads}
    return Timed("workbook.tflite_worker", environment, **first)


def _check(subject: Subject, name: str, child: Timed) -> None:
    try:
        output = child.ready()["output"]
    except WorkerError as error:
        raise WorkbookError(f"{subject.model.name}, {name}: {error}") from None
    wanted = subject.answers(name.removesuffix(AA_SUFFIX), 1)[0]
    if not np.array_equal(output[subject.model.first_class :], wanted):
        raise WorkbookError(f"{subject.model.name}, {name}: its process gives another output")


def keep(run: Run, subject: Subject, timings: Timings) -> dict[str, Any]:
    """Record times and ratios of a model; return its line of the table.

    Parameters
    ----------
    run : workbook.context.Run
        Where the rows go: ``latency`` in ms, ``time_ratio`` of `COMPARED`.
    subject : Subject
        The model.
    timings : relaxquant.measure.Timings
        From `timed`.
    """
    latency.keep(run, timings, {name: subject.columns(name) for name in (*OURS, LITERT)})
    line: dict[str, Any] = {"model": subject.model.name}
    for name in (FLOAT, INT8, LITERT):
        line[f"{name} (ms)"] = timings.median(name) * latency.MILLISECONDS
    for words, (one, other) in COMPARED.items():
        ratio = timings.ratio(one, other)
        latency.keep_ratio(run, "time_ratio", ratio, subject.columns(one) | {"executor": words})
        line[words] = f"{ratio.value:.2f} ({latency.bounds(ratio)})"
    return line


def shown(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of `keep` without the ratios that another table shows."""
    hidden = set(COMPARED) - set(SHOWN)
    return [{k: v for k, v in line.items() if k not in hidden} for line in lines]


def noise(run: Run, subject: Subject, timings: Timings) -> float:
    """The noise floor of a model's run, a fraction; a row ``noise_floor`` in percent."""
    floor = noise_floor(timings, INT8, CONTROL).floor
    value = shares.PERCENT * floor
    run.record(metric="noise_floor", value=value, unit="%", **subject.columns(INT8))
    return floor


def depthwise(subject: Subject, repeats: int) -> dict[str, Any] | None:
    """Time of a model's depthwise convolutions and of all else, fp32 and int8, by stamps.

    Parameters
    ----------
    subject : Subject
        The model.
    repeats : int
        Stamped runs, of which the median counts.

    Returns
    -------
    dict or None
        A line of the table; None for a model without depthwise convolutions.
    """
    line: dict[str, Any] = {"model": subject.model.name}
    for name, words in ((FLOAT, "fp32"), (INT8, "int8")):
        profile = subject.libraries[name].profile(subject.inputs[0], repeats=repeats)
        seconds = {True: 0.0, False: 0.0}
        for layer in profile:
            seconds[is_depthwise(layer.record)] += layer.seconds
        if not seconds[True]:
            return None
        line[f"depthwise, {words} (ms)"] = seconds[True] * latency.MILLISECONDS
        line[f"all else, {words} (ms)"] = seconds[False] * latency.MILLISECONDS
    line["depthwise, fp32 / int8"] = line["depthwise, fp32 (ms)"] / line["depthwise, int8 (ms)"]
    return line


def is_depthwise(record: Any) -> bool:
    """Whether a kernel is a convolution with one input channel a group."""
    channels, _, rest = record.shape.partition("x")
    return record.op == "conv2d" and rest.endswith(f", groups {channels}")


def published(ours: pd.DataFrame, study: pd.DataFrame) -> pd.DataFrame:
    """The study's times with ours beside them where a model is the same.

    Parameters
    ----------
    ours : pandas.DataFrame
        Lines of `keep`.
    study : pandas.DataFrame
        ``data/published/quantization_story_latency.csv``.
    """
    times = study.pivot_table(index="model", columns="variant", values="value", sort=False)
    symmetric = times["quantized"] / times["quantized, forced symmetric"]
    table = pd.DataFrame({
        "model": times.index,
        "published float (ms)": times["float"].to_numpy(),
        "quantized (ms)": times["quantized"].to_numpy(),
        "quantized / float": (times["quantized"] / times["float"]).to_numpy(),
        "gain of symmetric (x)": symmetric.to_numpy(),
    })  # fmt: skip
    here = ours.set_index(ours["model"].map(STUDIED)).reindex(table["model"])
    here.index = range(len(table))
    return table.assign(**{"ours here, int8 / fp32": here["our int8 / our fp32"].fillna("")})
