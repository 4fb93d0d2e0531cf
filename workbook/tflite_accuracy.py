"""What quantized TFLite models answer in LiteRT and in ours: labels, accuracy, single integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from relaxquant import measure
from workbook import shares
from workbook.litert import compare_tensors, first_difference
from workbook.shares import PERCENT
from workbook.tflite_subject import (
    BY_CHANNEL,
    EXACT,
    FLOAT,
    INT8,
    LITERT,
    REFERENCE,
    STUDIED,
    SYMMETRIC,
    Subject,
)

if TYPE_CHECKING:
    from relaxquant.measure import PairedDifference
    from workbook.context import Run

ROUNDINGS = ("tflite", "float")
# What a difference of top-1 is called by what it is to; that of other notebooks is to fp32.
BASES = {LITERT: "top1_to_litert", INT8: "top1_to_int8"}
FORCED = {
    "as they were": (SYMMETRIC, "symmetric"),
    "for each channel": (BY_CHANNEL, "symmetric by channel"),
}
# Whose labels are compared with whose, and the words for it in the table's head.
LABELS = {
    "tflite rounding = reference": (EXACT, REFERENCE),
    "our int8 = XNNPACK": (INT8, LITERT),
    "XNNPACK = reference": (LITERT, REFERENCE),
}


def tensors(run: Run, subject: Subject, count: int, settings: dict[str, Any]) -> list[dict]:
    """Compare every quantized tensor with LiteRT's reference kernels, under both roundings.

    Parameters
    ----------
    run : workbook.context.Run
        Where the rows go: ``equal_integers`` in percent.
    subject : Subject
        The model.
    count : int
        Images.
    settings : dict
        Further arguments of `relaxquant.compile`.

    Returns
    -------
    list of dict
        Two lines of the table.
    """
    lines = []
    for rounding, name in zip(ROUNDINGS, (EXACT, INT8), strict=True):
        rows = compare_tensors(
            subject.model.path, subject.inputs[:count], requantize=rounding, **settings
        )
        sizes = [np.prod(row.shape) for row in rows]
        equal = PERCENT * float(np.average([row.equal for row in rows], weights=sizes))
        seen = min(count, len(subject.inputs))
        columns = subject.columns(name)
        run.record(metric="equal_integers", value=equal, unit="%", n=seen, **columns)
        first = first_difference(rows)
        lines.append({
            "model": subject.model.name,
            "rounding": rounding,
            "tensors": len(rows),
            "equal integers (%)": equal,
            "largest difference (steps)": max(row.largest for row in rows),
            "first that differs": "none" if first is None else first.name[-40:],
        })  # fmt: skip
    return lines


def labels(run: Run, subject: Subject, count: int) -> dict[str, Any]:
    """How often two ways of running a model name the same class; rows of ``agreement`` in percent.

    Parameters
    ----------
    run : workbook.context.Run
        Where the rows go.
    subject : Subject
        The model.
    count : int
        Images that LiteRT's slow reference kernels see; XNNPACK sees all.

    Returns
    -------
    dict
        A line of the table.
    """
    line: dict[str, Any] = {"model": subject.model.name}
    for words, (one, other) in LABELS.items():
        seen = count if REFERENCE in (one, other) else None
        share = measure.agreement(subject.answers(one, seen), subject.answers(other, seen))
        if one in (EXACT, INT8):
            shares.keep(run, "agreement", share, subject.columns(one))
        line[f"{words} (%)"] = PERCENT * share.value
        line[f"n, {'reference' if seen else 'XNNPACK'}"] = share.n
    for name in (FLOAT, SYMMETRIC, BY_CHANNEL):
        share = measure.agreement(subject.answers(name), subject.answers(INT8))
        shares.keep(run, "agreement", share, subject.columns(name))
    return line


def accuracy(run: Run, subject: Subject) -> dict[str, Any]:
    """Top-1 and top-5 of LiteRT and of ours on the same images, and the paired difference.

    Parameters
    ----------
    run : workbook.context.Run
        Where the rows go: ``top1`` and ``top5`` in percent, ``top1_to_litert_difference`` in
        points.
    subject : Subject
        The model.

    Returns
    -------
    dict
        A line of the table; short where the images have no labels.
    """
    images = subject.images
    line: dict[str, Any] = {"model": subject.model.name}
    if images.labels is None:
        return line | {"images": f"{len(images)}, {images.source}: no labels"}
    for name in (LITERT, INT8, EXACT, FLOAT, SYMMETRIC, BY_CHANNEL):
        found = measure.Predictions(subject.answers(name), images.labels)
        for k in (1, 5):
            shares.keep(run, f"top{k}", found.accuracy(k), subject.columns(name))
        if name in (LITERT, INT8):
            both = [PERCENT * found.accuracy(k).value for k in (1, 5)]
            line[f"{name}: top-1 / top-5 (%)"] = "{:.1f} / {:.1f}".format(*both)
    change = difference(run, subject, INT8, LITERT)
    line["ours - LiteRT (points, 95 %)"] = shares.words(change)
    tied = measure.tied(subject.answers(INT8))
    return line | {"tied (%)": PERCENT * float(tied.mean()), "n": change.n}


def difference(run: Run, subject: Subject, one: str, other: str) -> PairedDifference:
    """Top-1 of one way minus that of another on the same images; a row ``<base>_difference``."""
    correct = [measure.top_k(subject.answers(name), subject.images.labels) for name in (one, other)]
    change = measure.paired_difference(*correct)
    shares.keep_difference(run, change, subject.columns(one), BASES[other])
    return change


def symmetric(run: Run, subject: Subject, times: dict[str, str]) -> list[dict[str, Any]]:
    """What forcing all zero points to 0 costs and gains: lines of the table.

    Parameters
    ----------
    run : workbook.context.Run
        Where the rows ``top1_to_int8_difference`` go.
    subject : Subject
        The model.
    times : dict
        A line of the latency table, with the ratios to our int8.
    """
    lines = []
    for scales, (name, words) in FORCED.items():
        same = measure.agreement(subject.answers(name), subject.answers(INT8))
        line = {
            "model": subject.model.name,
            "scales of weights": scales,
            "layers that lose zero points of weights": _window_sums(subject),
            "time / as it came": times[f"{words} / our int8"],
            "same label (%)": PERCENT * same.value,
        }
        if subject.images.labels is not None:
            change = difference(run, subject, name, INT8)
            line |= {"top-1 (points, 95 %)": shares.words(change), "n": change.n}
        lines.append(line)
    return lines


def _window_sums(subject: Subject) -> int:
    kernels = subject.libraries[INT8].kernels
    return sum("window sums" in record.instructions for record in kernels)


def beside_published(study: pd.DataFrame, lines: list[dict[str, Any]]) -> pd.DataFrame:
    """The study's accuracies, and ours where a model is the same; on other images.

    Parameters
    ----------
    study : pandas.DataFrame
        ``data/published/quantization_story_accuracy.csv``.
    lines : list of dict
        From `accuracy`.
    """
    wide = study.pivot_table(index="model", columns=["variant", "metric"], values="value")
    column = f"{INT8}: top-1 / top-5 (%)"
    here = {STUDIED.get(line["model"]): line.get(column, "") for line in lines}
    pair = "{:.1f} / {:.1f}"
    table = [
        {
            "model": model,
            "reported: top-1 / top-5 (%)": pair.format(*wide.loc[model, "reported"]),
            "through TVM then (%)": pair.format(*wide.loc[model, "through TVM"]),
            "ours here, other images (%)": here.pop(model, ""),
        }
        for model in wide.index
    ]
    return pd.DataFrame(table)
