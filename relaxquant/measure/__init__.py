"""Measuring: time, memory, accuracy, and the facts about the machine they were measured on.

Everything here works on NumPy arrays and plain functions and knows nothing of compilers, except
`peak`, whose loops are built with the kernels' own instructions.
"""

from .accuracy import (
    PairedDifference,
    Predictions,
    accuracy,
    agreement,
    evaluate,
    paired_difference,
    predict,
    signal_to_noise,
    tied,
    top_k,
)
from .intervals import Proportion, bootstrap_median, newcombe_paired, wilson
from .machine import facts, load_average, short_name
from .memory import PeakMemory, peak_memory
from .peak import Peak, machine_peak
from .samples import NoiseFloor, Ratio, Timings, Warmup, noise_floor
from .timing import aa_control, interleaved

__all__ = [
    "NoiseFloor",
    "PairedDifference",
    "Peak",
    "PeakMemory",
    "Predictions",
    "Proportion",
    "Ratio",
    "Timings",
    "Warmup",
    "aa_control",
    "accuracy",
    "agreement",
    "bootstrap_median",
    "evaluate",
    "facts",
    "interleaved",
    "load_average",
    "machine_peak",
    "newcombe_paired",
    "noise_floor",
    "paired_difference",
    "peak_memory",
    "predict",
    "short_name",
    "signal_to_noise",
    "tied",
    "top_k",
    "wilson",
]
