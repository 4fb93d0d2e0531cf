"""The type of a layer's sums, relay.quantize's ``dtype_activation``: what it costs and what for.

The study's protocol: rounds with a fresh random image each, and several executions on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

import relaxquant as rq
from relaxquant import measure
from relaxquant.measure import Timings
from workbook import latency, shares, top5
from workbook.widths import FP32, Subject

if TYPE_CHECKING:
    import pandas as pd
    import tvm

    from workbook.context import Run

ROUNDS = 15  # of the study
DTYPES = ("int8", "int16", "int32")
# The precisions under which the study's table has the three.
PUBLISHED = {FP32: "fp32", "int8": "w8a8", "int16": "w8a16", "int32": "w8a32"}


def configs(dtypes: Sequence[str] = DTYPES, **fields: Any) -> dict[str, rq.QConfig | None]:
    """fp32, and relay.quantize's defaults with each type of the sums and ``fields`` changed."""
    found = {dtype: rq.QConfig.relay_default(dtype_activation=dtype, **fields) for dtype in dtypes}
    return {FP32: None} | found


class FreshImages:
    """A function to time: one call is several executions on an image it has not just seen.

    Parameters
    ----------
    library : callable
    shape : tuple of int
        Of the input.
    rounds, executions, seed : int
        So many images are drawn beforehand, and so many executions made on each.
    """

    def __init__(self, library, shape: tuple[int, ...], rounds: int, executions: int, seed: int):
        images = np.random.default_rng(seed).standard_normal((rounds, *shape), np.float32)
        self._library, self._images, self._executions = library, cycle(images), executions

    def __call__(self) -> np.ndarray:
        image = next(self._images)
        for _ in range(self._executions):
            output = self._library(image)
        return output


def timed(libraries: Mapping[str, rq.Library], rounds: int, executions: int, seed: int) -> Timings:
    """Seconds an execution, interleaved, by the study's protocol."""
    calls = {
        name: FreshImages(library, tuple(library.metadata.inputs[0][1]), rounds, executions, seed)
        for name, library in libraries.items()
    }
    found = measure.interleaved(calls, rounds=rounds, seed=seed, min_sample_s=0)
    each = {name: found.of(name) / executions for name in found.names}
    return Timings(each, dict.fromkeys(each, executions), found.warmup, found.order)


def compared(
    run: Run,
    subject: Subject,
    chosen: Mapping[str, rq.QConfig | None],
    published: pd.DataFrame,
    timings: Timings,
) -> list[dict[str, Any]]:
    """Time and accuracy by the type of the sums, the study's times beside.

    Parameters
    ----------
    run : workbook.context.Run
        Where the rows go: ``latency``, and ``top1`` with the type behind it, in percent.
    subject : Subject
        The network with its images.
    chosen : mapping
        As `configs` gives it.
    published : pandas.DataFrame
        ``resnet50_study_latency`` of the published figures.
    timings : relaxquant.measure.Timings
        As `timed` gives it.
    """
    theirs = published[published["hardware"] == "CPU"].set_index("precision")["value"]
    times = latency.keep(run, timings, {n: _columns(subject, n) for n in chosen})
    ours = times.set_index("variant")
    cats = {guess.name: guess for guess in top5.of_the_cat(subject, chosen)}
    lines = []
    for name, config in chosen.items():
        found = measure.Predictions(subject.logits(config), subject.labels).accuracy()
        metric = "top1" if config is None else f"top1, sums {name}"
        shares.keep(run, metric, found, _columns(subject, name))
        lines.append(
            {
                "sums": name,
                "published (ms)": theirs[PUBLISHED[name]],
                "ours (ms)": ours.loc[name, "median (ms)"],
                "95 % (ms)": "{:.2f} to {:.2f}".format(
                    *ours.loc[name, ["95 % low (ms)", "95 % high (ms)"]]
                ),
                "published, of int32": theirs[PUBLISHED[name]] / theirs[PUBLISHED["int32"]],
                "ours, of int32": timings.ratio(name, "int32").value,
                "top-1 (%)": 100 * found.value,
                "95 % (%)": f"{100 * found.low:.1f} to {100 * found.high:.1f}",
                "n": found.n,
                "the cat is": cats[name].words(1),
            }
        )
    return lines


def _columns(subject: Subject, name: str) -> dict[str, Any]:
    kind = {"precision": FP32 if name == FP32 else "w8a8", "executor": "graph"}
    if name != FP32:
        kind["schedule"] = f"auto, sums {name}"
    return subject.columns | kind | {"batch": 1}


def reach_lines(subject: Subject, chosen: Mapping[str, rq.QConfig | None]) -> list[dict[str, Any]]:
    """How far sums of each type reach, beside the threshold of the activations they become.

    A sum counts in steps of the data's scale times the weights', which are much finer than those of
    the activation: an int8 sum ends at 127 of them.
    """
    narrowed = {name: _steps(subject.quantized(c), name) for name, c in chosen.items() if c}
    # Sums of 32 bits have no step of their own in the module: it is the same for all.
    known = next(steps for steps in narrowed.values() if len(steps))
    lines = []
    for name, config in chosen.items():
        if config is not None:
            steps = narrowed[name] if len(narrowed[name]) else known
            reach = steps * float(np.iinfo(name).max) / config.global_scale
            lines.append(
                {
                    "sums": name,
                    "reach, least of all layers": reach.min(),
                    "reach, median layer": float(np.median(reach)),
                    "layers that cannot reach 1": int((reach < 1).sum()),
                    "of layers": len(reach),
                }
            )
    return lines


def _steps(module: tvm.IRModule, dtype: str) -> np.ndarray:
    """The scale of each layer's sum where it is stored in a narrow type, real units."""
    layers = ("nn.conv2d", "matmul")
    rows = [
        r for r in rq.summary(module)
        if r.producer in layers and r.dtype == dtype and r.channels > 1
    ]  # fmt: skip
    return np.array([row.scale for row in rows])


def distinct_outputs(subject: Subject, chosen: Mapping[str, rq.QConfig | None]) -> dict[str, int]:
    """How many different outputs the evaluation images give: 1 says that the input is lost."""
    return {name: len(np.unique(subject.logits(config), axis=0)) for name, config in chosen.items()}
