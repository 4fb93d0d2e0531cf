"""One network at one setting, at once: its time, its layers' rates, what runs, what it sees.

What was quantized, compiled and measured is kept, so that going back to a setting costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

import relaxquant as rq
from relaxquant import measure, zoo
from relaxquant.inspect import LayerBound, layer_bounds
from relaxquant.kernels.registry import AUTO, cpu_rows
from relaxquant.measure import Peak
from workbook import latency, shares, widths
from workbook.schedules import REFERENCE
from workbook.tables import untrained
from workbook.widths import FP32

if TYPE_CHECKING:
    from collections.abc import Callable

    from relaxquant.executors.layer_times import LayerTime
    from relaxquant.measure import Proportion, Timings
    from workbook.context import Run
    from workbook.widths import Subject

WIDTHS = (FP32, "w16a16", "w8a16", "w8a8", "w6a6", "w4a8", "w4a4", "w2a2", "w1a1")
BATCHES = (1, 2, 4, 8, 16, 32)
CHOSEN = "chosen"  # its name among the timed variants, beside FP32
REPEATS = 20  # instrumented runs for the layers' times
PEAKS = 3  # measurements of the machine's limits at most; each takes a second or two


def schedules() -> list[str]:
    """``auto``, then the schedules for CPUs but for the scalar reference."""
    return [AUTO, *dict.fromkeys(row.name for row in cpu_rows() if row.name != REFERENCE)]


@dataclass(frozen=True)
class Choice:
    """What is compiled: a network of the zoo, its bits, a schedule, and images in one inference."""

    model: str
    width: str = "w8a8"
    schedule: str = AUTO
    batch: int = 1

    @property
    def config(self) -> rq.QConfig | None:
        """How it is quantized; None for fp32."""
        return None if self.width == FP32 else widths.parse(self.width).config()

    @property
    def is_base(self) -> bool:
        """Whether it is what all others are compared with: fp32, its schedules by the rules."""
        return self.config is None and self.schedule == AUTO

    @property
    def timed_as(self) -> str:
        """Its name among the timed variants."""
        return FP32 if self.is_base else CHOSEN


@dataclass(frozen=True)
class Layer:
    """A convolution or dense layer as it ran, beside the least time that the machine allows."""

    time: LayerTime
    bound: LayerBound
    batch: int

    @property
    def name(self) -> str:
        """The layer's name and shape."""
        return f"{self.time.record.layer}: {self.time.record.shape}"

    @property
    def rate(self) -> float:
        """GMAC/s."""
        return self.batch * self.time.record.macs / self.time.seconds / 1e9

    @property
    def limit(self) -> float:
        """GMAC/s of the roofline; Winograd's schedules may go beyond."""
        return self.bound.macs / self.bound.seconds / 1e9

    @property
    def passes(self) -> bool:
        """Whether it was faster than the roofline."""
        return self.rate > self.limit

    def line(self) -> dict[str, Any]:
        """The layer as a line of the table."""
        record = self.time.record
        return {
            "layer": record.layer,
            "shape": record.shape,
            "schedule": record.schedule,
            "multiplied by": record.instructions,
            "time (µs)": self.time.seconds * 1e6,
            "GMAC/s": self.rate,
            "limit (GMAC/s)": self.limit,
            "limited by": "memory" if self.bound.by_memory else "compute",
        }


@dataclass(frozen=True)
class Found:
    """What one choice gave."""

    choice: Choice
    net: zoo.Network
    library: rq.Library
    timings: Timings
    layers: list[Layer]
    same: Proportion
    right: Proportion | None
    pictures: np.ndarray = field(repr=False)
    captions: list[str] = field(repr=False)
    correct: list[bool | None] = field(repr=False)

    @property
    def milliseconds(self) -> float:
        """Median of one inference."""
        return self.timings.median(self.choice.timed_as) * 1e3

    @property
    def rate(self) -> float:
        """GMAC/s of all layers over the time of the whole network."""
        macs = sum(layer.bound.macs for layer in self.layers)
        return macs / self.milliseconds / 1e6

    @property
    def limit(self) -> float:
        """GMAC/s if each layer took its least time, and nothing else took any."""
        macs = sum(layer.bound.macs for layer in self.layers)
        return macs / sum(layer.bound.seconds for layer in self.layers) / 1e9

    def sentence(self) -> str:
        """Time, rate and accuracy in words."""
        choice = self.choice
        note = untrained(self.net.trained)
        compared = "" if choice.is_base else f", {self._speedup()} fp32"
        right = "" if self.right is None else f", the right one on {self.right}"
        return (
            f"{choice.model}{note}, {choice.width}, schedule {choice.schedule}, batch "
            f"{choice.batch}: {self.milliseconds:.3g} ms{compared}; {self.rate:.0f} GMAC/s, where "
            f"its layers' limits give {self.limit:.0f}. The same top class as fp32 on "
            f"{self.same}{right}."
        )

    def _speedup(self) -> str:
        ratio = self.timings.ratio(FP32, CHOSEN)
        bounds = f"({latency.bounds(ratio)}, n={ratio.n})"
        verdict = ", inconclusive," if ratio.verdict == "inconclusive" else ""
        return f"{ratio.value:.2f}x as fast {bounds}{verdict} as"


@dataclass
class Explorer:
    """Quantizes, compiles and measures on demand, and keeps all of it.

    Attributes
    ----------
    settings : mapping
        Further arguments of `relaxquant.compile`: target and threads.
    rounds : int
        Interleaved timing rounds.
    calibration, images : int
        Images to calibrate on, and to judge by.
    seed : int
        Of images, inputs and of the order within a round.
    load : callable
        Model name -> `workbook.widths.Subject`; the zoo's network by default.
    """

    settings: Mapping[str, Any]
    rounds: int = 10
    calibration: int = 16
    images: int = 16
    seed: int = 0
    load: Callable[[str], Subject] | None = None
    _subjects: dict[str, Subject] = field(default_factory=dict, repr=False)
    _libraries: dict[Choice, rq.Library] = field(default_factory=dict, repr=False)
    _logits: dict[Choice, np.ndarray] = field(default_factory=dict, repr=False)
    _found: dict[Choice, Found] = field(default_factory=dict, repr=False)
    _peaks: list[Peak] = field(default_factory=list, repr=False)

    @property
    def peak(self) -> Peak:
        """The machine's limits: the best that was measured, once and whenever a layer passed it."""
        if not self._peaks:
            self._measure_peak()
        return reduce(Peak.best, self._peaks)

    def _measure_peak(self) -> None:
        found = measure.machine_peak(self.settings["target"], self.settings["threads"])
        self._peaks.append(found)

    def find(self, choice: Choice, again: bool = False) -> Found:
        """Measure a choice; one that was measured before is only looked up.

        Parameters
        ----------
        choice : Choice
            What to run.
        again : bool
            Measure in any case. Nothing is compiled anew.

        Raises
        ------
        relaxquant.RelaxQuantError
            What the library refuses, an unknown schedule say.
        """
        if again or choice not in self._found:
            self._found[choice] = self._measure(choice)
        return self._found[choice]

    def subject(self, model: str) -> Subject:
        """A network with its images, loaded once."""
        if model not in self._subjects:
            self._subjects[model] = (self.load or self._from_zoo)(model)
        return self._subjects[model]

    def library(self, choice: Choice) -> rq.Library:
        """A compiled choice; the compile cache keeps it beyond this process too."""
        if choice not in self._libraries:
            module = self.subject(choice.model).quantized(choice.config)
            self._libraries[choice] = rq.compile(
                module, schedule=choice.schedule, batch=choice.batch, **self.settings
            )
        return self._libraries[choice]

    def _from_zoo(self, model: str) -> Subject:
        return widths.subject(model, self.calibration, self.images, self.seed, self.settings)

    def _measure(self, choice: Choice) -> Found:
        base = Choice(choice.model, FP32, AUTO, choice.batch)
        timed = {FP32: base} | ({} if choice.is_base else {CHOSEN: choice})
        subject = self.subject(choice.model)
        x = np.resize(subject.seen.x, (choice.batch, *subject.seen.x.shape[1:]))
        libraries = {name: self.library(what) for name, what in timed.items()}
        variants = {name: partial(library, x) for name, library in libraries.items()}
        timings = measure.interleaved(variants, rounds=self.rounds, seed=self.seed)
        logits = self._answers(choice)
        labels, guesses = subject.seen.labels, logits.argmax(1)
        right = None
        if labels is not None:
            right = measure.wilson(int((guesses == labels).sum()), len(labels))
        return Found(
            choice, subject.net, self.library(choice), timings, self._layers(choice, x),
            measure.agreement(logits, self._answers(base)), right, subject.seen.thumbnails,
            self._captions(choice, base),
            [None] * len(guesses) if labels is None else [bool(t) for t in guesses == labels],
        )  # fmt: skip

    def _layers(self, choice: Choice, x: np.ndarray) -> list[Layer]:
        profile = self.library(choice).profile(x, repeats=REPEATS)
        layers = self._bounded(choice, profile)
        # The limits may have been measured while the machine was busy with something else.
        if len(self._peaks) < PEAKS and any(layer.passes for layer in layers):
            self._measure_peak()
            layers = self._bounded(choice, profile)
        return layers

    def _bounded(self, choice: Choice, profile: list[LayerTime]) -> list[Layer]:
        module = self.subject(choice.model).quantized(choice.config)
        bounds = {b.layer: b for b in layer_bounds(module, self.peak, choice.batch)}
        return [
            Layer(time, bounds[time.record.layer], choice.batch)
            for time in profile
            if time.record.macs and time.record.layer in bounds
        ]

    def _answers(self, choice: Choice) -> np.ndarray:
        if choice not in self._logits:
            x = self.subject(choice.model).seen.x
            self._logits[choice] = measure.predict(self.library(choice), x, choice.batch)
        return self._logits[choice]

    def _captions(self, choice: Choice, base: Choice) -> list[str]:
        names = zoo.class_names(self.subject(choice.model).net.dataset)
        both = {FP32: self._answers(base), choice.width: self._answers(choice)}
        guesses = {name: logits.argmax(1) for name, logits in both.items()}
        return [
            "\n".join(f"{name}: {names[g[i]].split(',')[0][:22]}" for name, g in guesses.items())
            for i in range(len(self._answers(choice)))
        ]


def keep(run: Run, found: Found) -> None:
    """Record a choice's latency, and how often it gives fp32's top class.

    Parameters
    ----------
    run : workbook.context.Run
        Where the rows go.
    found : Found
        What `Explorer.find` returned.
    """
    choice, net = found.choice, found.net
    columns = {
        "model": net.name, "weights": net.weights, "trained": net.trained, "batch": choice.batch,
        "schedule": choice.schedule, "precision": choice.width, "executor": "graph",
    }  # fmt: skip
    latency.keep(run, found.timings, {choice.timed_as: columns})
    shares.keep(run, "agreement", found.same, columns)
