"""The calibration modes that look at data: what each one remembers, and what it makes of it."""

from __future__ import annotations

from functools import partial

from .config import QConfig
from .divergence import kl_divergence
from .histogram import Ends, Histogram
from .thresholds import Calibrator, min_max, mse, percentile


def calibrator(config: QConfig) -> tuple[type[Ends], Calibrator]:
    """The observer of `config.calibrate_mode`, and the function from it to a range."""
    if config.calibrate_mode == "min_max":
        return Ends, min_max
    modes = {
        "percentile": partial(percentile, percentile=config.percentile),
        "kl_divergence": kl_divergence,
        "mse": mse,
    }
    return Histogram, modes[config.calibrate_mode]
