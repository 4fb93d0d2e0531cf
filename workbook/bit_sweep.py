"""Accuracy over bit widths, calibrators and granularities, each against fp32 on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import relaxquant as rq
from relaxquant import measure
from workbook import shares
from workbook.widths import AUTO, FP32, PLAIN, Subject, Width

if TYPE_CHECKING:
    from relaxquant.measure import PairedDifference, Proportion
    from workbook.context import Run

PRESET = "preset"
RELAY = "relay's defaults"


@dataclass(frozen=True)
class Setting:
    """One way to quantize: what it is called in tables, and the config it stands for."""

    precision: str
    calibrator: str
    granularity: str
    config: rq.QConfig | None

    @property
    def is_plain(self) -> bool:
        """Whether it is fp32 or a preset: these are timed as well, with the rules' schedules."""
        return self.calibrator == PRESET or self.config is None

    @property
    def metric(self) -> str:
        """Metric of its row: the presets are plainly ``top1``, the others say how they differ."""
        return "top1" if self.is_plain else f"top1, {self.calibrator}, {self.granularity}"


def fp32() -> Setting:
    """Not quantized: what all others are compared with."""
    return Setting(FP32, "", "", None)


def preset(width: Width) -> Setting:
    """The best preset at a width, as whoever asks for nothing else gets it."""
    config = width.config()
    return Setting(width.name, PRESET, config.weight_granularity, config)


def presets(widths: Sequence[Width]) -> list[Setting]:
    """fp32, relay's defaults, and the preset of each width."""
    return [fp32(), relay(), *(preset(width) for width in widths)]


def relay() -> Setting:
    """What relay.quantize did when nothing was chosen."""
    config = rq.QConfig.relay_default()
    return Setting("w8a8", RELAY, config.weight_granularity, config)


def settings(
    widths: Sequence[Width],
    calibrators: Sequence[str],
    granularities: Sequence[str],
    swept: Sequence[Width] | None = None,
) -> list[Setting]:
    """fp32, relay's defaults, and each width by preset and by every calibrator and granularity.

    Parameters
    ----------
    widths : sequence of Width
    calibrators : sequence of str
        Values of ``QConfig.calibrate_mode``.
    granularities : sequence of str
        Values of ``QConfig.weight_granularity``.
    swept : sequence of Width, optional
        Those of the widths that are not only quantized by preset; default: all.
    """
    found = [fp32(), relay()]
    for width in widths:
        found.append(preset(width))
        others = product(calibrators, granularities) if swept is None or width in swept else ()
        for calibrator, granularity in others:
            fields = {"calibrate_mode": calibrator, "weight_granularity": granularity}
            config = width.config(**fields)
            if config != found[-1].config and config != preset(width).config:
                found.append(Setting(width.name, calibrator, granularity, config))
    return found


@dataclass(frozen=True)
class Result:
    """Top-1 of one setting, and the difference from fp32 in points, on the same images."""

    setting: Setting
    model: str
    top1: Proportion
    change: PairedDifference

    def __str__(self) -> str:
        return f"top-1 {100 * self.top1.value:.1f} %, against fp32 {self.change}"

    @property
    def line(self) -> dict[str, Any]:
        """A line of the table."""
        change = self.change
        return {
            "model": self.model,
            "precision": self.setting.precision,
            "calibrator": self.setting.calibrator,
            "scales of weights": self.setting.granularity,
            "top-1 (%)": 100 * self.top1.value,
            "95 % (%)": f"{100 * self.top1.low:.1f} to {100 * self.top1.high:.1f}",
            "against fp32 (points)": change.points,
            "95 % (points)": f"{change.low:+.1f} to {change.high:+.1f}",
            "n": self.top1.n,
        }


def sweep(run: Run, subject: Subject, wanted: Sequence[Setting]) -> list[Result]:
    """Measure and record the accuracy of each setting.

    Parameters
    ----------
    run : workbook.context.Run
        Where the rows go: ``top1`` (with the calibrator and granularity behind it where they are
        not the preset's) in percent, and ``top1_difference`` of the presets, in points.
    subject : Subject
        The network with its images.
    wanted : sequence of Setting
        As `settings` gives them; fp32 is what all others are compared with.
    """
    labels = subject.labels
    reference = measure.top_k(subject.logits(), labels)
    results = []
    for setting in wanted:
        schedule = AUTO if setting.is_plain else PLAIN
        found = measure.Predictions(subject.logits(setting.config, schedule), labels)
        change = measure.paired_difference(found.correct(), reference)
        results.append(Result(setting, subject.net.name, found.accuracy(), change))
        _record(run, subject, results[-1])
    return results


def _record(run: Run, subject: Subject, result: Result) -> None:
    columns = subject.columns | {"precision": result.setting.precision}
    # Without labels it is fp32's answers that were compared with.
    metric = result.setting.metric
    if subject.seen.labels is None:
        metric = metric.replace("top1", "agreement")
    shares.keep(run, metric, result.top1, columns)
    if result.setting.calibrator == PRESET:
        shares.keep_difference(run, result.change, columns, metric)


def presets_within(results: Sequence[Result], points: float) -> list[Result]:
    """Presets that lose at most so many points of fp32's top-1, as measured."""
    return [
        r for r in results if r.setting.calibrator == PRESET and r.change.points >= -points
    ]  # fmt: skip
