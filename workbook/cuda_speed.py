"""Variants of a network on a GPU: outputs checked, then timed in turns, labels beside the times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from relaxquant import measure, zoo
from workbook import cuda_variants, latency, shares
from workbook.cuda_variants import DP4A, FP16, FP32, MMA, NAIVE
from workbook.errors import WorkbookError

if TYPE_CHECKING:
    import pandas as pd

    from relaxquant import Library
    from relaxquant.measure import Proportion, Timings
    from workbook.context import Run

# Least signal to noise, in dB, against the CPU's output of the same kind: fp32 sums in another
# order, fp16 rounds to 11 bits, naive int8 rounds ties of float sums in another order.
LEAST = {"fp32": 60.0, "fp16": 30.0, "w8a8": 20.0}
EXACT = (DP4A, MMA)  # integers: the same on every machine


def checker(fp32: np.ndarray, int8: np.ndarray) -> Callable[[str, Any], None]:
    """What refuses a wrong output before anything is timed.

    Parameters
    ----------
    fp32, int8 : numpy.ndarray
        The CPU's outputs on the same input, by our float and by our integer kernels.
    """

    def check(name: str, output: Any) -> None:
        got = cuda_variants.as_array(output)
        precision = cuda_variants.columns(name)["precision"]
        if name in EXACT:
            if not np.allclose(got, int8, rtol=1e-5, atol=1e-6):
                raise WorkbookError(f"{name}: its output is not that of the CPU's integer run")
            return
        ratio = measure.signal_to_noise(int8 if precision == "w8a8" else fp32, got)
        if ratio < LEAST[precision]:
            raise WorkbookError(
                f"{name}: its output is {ratio:.0f} dB from the CPU's, and should be "
                f"{LEAST[precision]:.0f} at least"
            )

    return check


def timed(
    libraries: Mapping[str, Library],
    other: Mapping[str, Callable],
    x: np.ndarray,
    references: Sequence[np.ndarray],
    rounds: int,
    seed: int,
) -> Timings:
    """Time all variants in turns, inputs and outputs on the GPU; outputs are checked before.

    Parameters
    ----------
    libraries, other : mapping
        From `cuda_variants.compiled` and `cuda_variants.others`.
    x : numpy.ndarray
        One batch.
    references : sequence of two arrays
        The CPU's outputs for it, in fp32 and in integers.
    rounds, seed : int
        As for `relaxquant.measure.interleaved`.
    """
    variants = cuda_variants.runners(libraries, other, x)
    return measure.interleaved(variants, rounds, seed=seed, check=checker(*references))


def copies(library: Library, x: np.ndarray, rounds: int, seed: int) -> float:
    """Median seconds of a call with its copies there and back, less the run itself."""
    calls = {"run": library.runner(x), "call": lambda: library(x)}
    found = measure.interleaved(calls, rounds, seed=seed)
    return found.median("call") - found.median("run")


def agreement(
    libraries: Mapping[str, Callable],
    reference: Callable,
    net: zoo.Network,
    batch: int,
    count: int,
    seed: int,
) -> dict[str, Proportion]:
    """How often each library gives the label that the CPU's integer run gives.

    Parameters
    ----------
    libraries : mapping
        Functions from NumPy to NumPy, from `callables`.
    reference : callable
        The CPU's integer run.
    net : relaxquant.zoo.Network
        Tells which images fit.
    batch, count, seed : int
        Images an inference, evaluation images, and their choice.
    """
    seen = zoo.evaluation_images(net, count, seed)
    wanted = measure.predict(reference, seen.x, batch)
    return {
        name: measure.agreement(measure.predict(library, seen.x, batch), wanted)
        for name, library in libraries.items()
    }


def callables(
    libraries: Mapping[str, Library], other: Mapping[str, Callable]
) -> dict[str, Callable]:
    """All variants as functions from NumPy to NumPy."""

    def whole(prepare: Callable) -> Callable:
        return lambda x: cuda_variants.as_array(prepare(x)())

    return dict(libraries) | {name: whole(prepare) for name, prepare in other.items()}


def keep(
    run: Run, timings: Timings, same: Mapping[str, Proportion], common: Mapping[str, Any]
) -> pd.DataFrame:
    """Record latency and agreement of every variant; the table has both side by side."""
    labels = {name: {**common, **cuda_variants.columns(name)} for name in timings.samples}
    table = latency.keep(run, timings, labels)
    for name in timings.samples:
        shares.keep(run, "agreement", same[name], labels[name])
    percent = [f"{100 * same[name].value:.1f} of {same[name].n}" for name in table["variant"]]
    return table.assign(**{"labels as the CPU's integers (%)": percent})


def words(timings: Timings) -> str:
    """The ratios that matter, with their intervals."""
    pairs = (NAIVE, cuda_variants.STOCK_FP32), (FP32, MMA), (FP16, MMA)
    ratios = [timings.ratio(*pair) for pair in pairs]
    slow, fast, half = (f"{r.value:.2f} ({r.low:.2f} to {r.high:.2f})" for r in ratios)
    return (
        f"naive int8 takes {slow} of stock fp32's time, and int8 on tensor cores is {fast} times "
        f"faster than our fp32 and {half} times faster than our fp16"
    )
