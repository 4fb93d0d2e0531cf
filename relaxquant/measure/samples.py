"""What a timing run leaves behind: raw samples, and the comparisons drawn from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError, did_you_mean
from .intervals import bootstrap_median, check_confidence

AA_SUFFIX = " (A/A)"


@dataclass(frozen=True)
class Warmup:
    """How a variant was warmed up: `calls` made, and whether its last samples were `stable`.

    `stable` is None where a number of calls was asked for, and nothing was judged.
    """

    calls: int
    stable: bool | None


@dataclass(frozen=True)
class Ratio:
    """Time of one variant over time of another: median of the n per-round ratios.

    `low` and `high` bound it at `confidence` and are nan where n is too small for that. `verdict`
    is "faster" or "slower" (the first variant against the second), or "inconclusive" where the
    interval spans 1 or does not exist.
    """

    value: float
    low: float
    high: float
    n: int
    confidence: float

    @property
    def verdict(self) -> str:
        if self.high < 1.0:
            return "faster"
        if self.low > 1.0:
            return "slower"
        return "inconclusive"

    def __str__(self) -> str:
        bounds = "no interval" if math.isnan(self.low) else f"{self.low:.3f} to {self.high:.3f}"
        return f"{self.value:.3f}x ({bounds}, n={self.n}, {self.verdict})"


@dataclass(frozen=True)
class NoiseFloor:
    """The A/A control: the same variant, built twice, against itself.

    `floor` is the largest relative difference that its interval does not exclude (0.02 is 2
    percent): a difference smaller than that was not measured by this run.
    """

    ratio: Ratio
    floor: float

    def exceeded_by(self, ratio: Ratio) -> bool:
        """Whether the whole interval of `ratio` lies further from 1 than the noise floor.

        Compared on a log scale, so that 0.5x and 2x are equally far from 1. False where either
        interval does not exist.
        """
        band = math.log1p(self.floor)
        return bool(math.log(ratio.low) > band or math.log(ratio.high) < -band)


@dataclass(frozen=True)
class Timings:
    """Raw samples of an interleaved run, and what is read from them.

    Attributes
    ----------
    samples : dict of str to numpy.ndarray
        Seconds a call, float64, shape (rounds,); entry i of every variant comes from round i.
    inner : dict of str to int
        Calls that one sample of the variant was averaged over.
    warmup : dict of str to Warmup
        How each variant was warmed up.
    order : tuple of tuple of str
        The order in which the variants ran, round by round.
    """

    samples: dict[str, np.ndarray]
    inner: dict[str, int] = field(default_factory=dict)
    warmup: dict[str, Warmup] = field(default_factory=dict)
    order: tuple[tuple[str, ...], ...] = ()

    @property
    def names(self) -> list[str]:
        """The variants, in the order in which they were given."""
        return list(self.samples)

    @property
    def rounds(self) -> int:
        """Samples a variant."""
        return len(next(iter(self.samples.values())))

    def of(self, name: str) -> np.ndarray:
        """Samples of one variant, seconds, shape (rounds,); InputError for an unknown name."""
        if name in self.samples:
            return self.samples[name]
        near = did_you_mean(name, self.samples)
        raise InputError(f"no variant {name!r} was timed{near} (timed were {self.names})")

    def median(self, name: str) -> float:
        """Median seconds a call."""
        return float(np.median(self.of(name)))

    def quartiles(self, name: str) -> tuple[float, float]:
        """First and third quartile, seconds a call."""
        low, high = np.quantile(self.of(name), [0.25, 0.75])
        return float(low), float(high)

    def iqr(self, name: str) -> float:
        """Inter-quartile range, seconds a call."""
        low, high = self.quartiles(name)
        return high - low

    def summary(self, confidence: float = 0.95, seed: int = 0) -> list[dict[str, Any]]:
        """One row a variant; every time in seconds a call.

        Keys: variant, median, q25, q75, iqr, ci_low, ci_high (bootstrap interval of the median),
        n (rounds), inner (calls a sample), warmup_calls, stable, unit ("s").
        """
        return [self._row(name, confidence, seed) for name in self.samples]

    def _row(self, name: str, confidence: float, seed: int) -> dict[str, Any]:
        low, high = bootstrap_median(self.of(name), confidence, seed)
        q25, q75 = self.quartiles(name)
        warmup = self.warmup.get(name)
        return {
            "variant": name,
            "median": self.median(name),
            "q25": q25,
            "q75": q75,
            "iqr": q75 - q25,
            "ci_low": low,
            "ci_high": high,
            "n": self.rounds,
            "inner": self.inner.get(name),
            "warmup_calls": warmup.calls if warmup else None,
            "stable": warmup.stable if warmup else None,
            "unit": "s",
        }

    def ratio(self, a: str, b: str, confidence: float = 0.95, seed: int = 0) -> Ratio:
        """Time of `a` over time of `b`: below 1, `a` is the faster.

        Paired: a ratio is taken in each round, where both variants met the same state of the
        machine, and the median and its percentile bootstrap interval are taken over the rounds.

        Raises
        ------
        InputError
            An unknown variant, or a confidence not between 0 and 1.
        """
        check_confidence(confidence)
        ratios = self.of(a) / self.of(b)
        low, high = bootstrap_median(ratios, confidence, seed)
        return Ratio(float(np.median(ratios)), low, high, ratios.size, confidence)

    def to_dict(self) -> dict[str, Any]:
        """Everything, raw samples included, as JSON-able values; `from_dict` reads it back."""
        return {
            "unit": "s",
            "samples": {name: values.tolist() for name, values in self.samples.items()},
            "inner": dict(self.inner),
            "warmup": {
                name: {"calls": w.calls, "stable": w.stable} for name, w in self.warmup.items()
            },
            "order": [list(names) for names in self.order],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Timings:
        """The inverse of `to_dict`."""
        return cls(
            {name: np.asarray(v, dtype=np.float64) for name, v in data["samples"].items()},
            dict(data["inner"]),
            {name: Warmup(**w) for name, w in data["warmup"].items()},
            tuple(tuple(names) for names in data["order"]),
        )


def noise_floor(
    timings: Timings, a: str, a2: str | None = None, confidence: float = 0.95, seed: int = 0
) -> NoiseFloor:
    """Noise floor of a run, from an A/A control timed in it (see `aa_control`).

    Parameters
    ----------
    timings : Timings
        A run in which one variant, built twice, was timed under two names.
    a, a2 : str
        The two names; `a2` defaults to the one that `aa_control` gives.
    confidence, seed
        As for `Timings.ratio`.

    Returns
    -------
    NoiseFloor
        Its `floor` is nan where the rounds are too few for an interval.

    Raises
    ------
    InputError
        An unknown variant, or the same name twice (that would compare samples with themselves).
    """
    a2 = a + AA_SUFFIX if a2 is None else a2
    if a == a2:
        raise InputError(f"an A/A control needs two builds under two names, got {a!r} twice")
    ratio = timings.ratio(a, a2, confidence, seed)
    bounds = [abs(math.log(bound)) for bound in (ratio.low, ratio.high)]
    return NoiseFloor(ratio, math.expm1(max(bounds)))
