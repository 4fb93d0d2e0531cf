"""Bit widths by name, and a network with its images that is quantized to any of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import relaxquant as rq
from relaxquant import measure, zoo
from relaxquant.kernels.registry import AUTO
from workbook.errors import WorkbookError

if TYPE_CHECKING:
    import tvm

CALIBRATION_BATCH = 8
# It keeps weights of any width in a byte each, so that the kernels of one width are those of all:
# quickly compiled, and independent of how the others pack. All schedules agree to the bit.
PLAIN = "nhwc_quantized_interleaved"
TERNARY = "t"
FP32 = "fp32"


@dataclass(frozen=True)
class Width:
    """Bits of weights and activations, ``w4a8`` say; ``wta8`` has ternary weights, -1, 0 and 1."""

    weight: int
    activation: int
    ternary: bool = False

    @property
    def name(self) -> str:
        """As it is written in tables and rows."""
        return f"w{TERNARY if self.ternary else self.weight}a{self.activation}"

    def config(self, **fields: Any) -> rq.QConfig:
        """The best settings with these bits, with ``fields`` changed."""
        own = {"nbit_weight": self.weight, "nbit_input": self.activation, "ternary": self.ternary}
        return rq.QConfig.best(**(own | fields))


def parse(name: str) -> Width:
    """Read a width.

    Raises
    ------
    WorkbookError
        For what is not ``wNaM``; that a number of bits is allowed is for `relaxquant.QConfig`.
    """
    found = re.fullmatch(r"w(\d+|t)a(\d+)", name)
    if not found:
        raise WorkbookError(
            f"{name!r} is no width: write w4a8 for 4-bit weights and 8-bit activations, wta8 for "
            "ternary weights"
        )
    weight, activation = found.groups()
    if weight == TERNARY:
        return Width(2, int(activation), ternary=True)
    return Width(int(weight), int(activation))


def parse_all(names: Iterable[str]) -> list[Width]:
    """Read widths, in order, each once."""
    return list(dict.fromkeys(parse(name) for name in names))


@dataclass
class Subject:
    """A network with the images that calibrate and judge it; each config is quantized once.

    Attributes
    ----------
    net : relaxquant.zoo.Network
    module : tvm.IRModule
        fp32 Relax, its batch symbolic.
    batches : list of numpy.ndarray
        Calibration data.
    seen : relaxquant.zoo.Images
        Evaluation images; never one of the calibration images.
    settings : mapping
        Further arguments of `relaxquant.compile`, target and threads.
    """

    net: zoo.Network
    module: tvm.IRModule
    batches: list[np.ndarray]
    seen: zoo.Images
    settings: Mapping[str, Any]
    _modules: dict = field(default_factory=dict, repr=False)
    _libraries: dict = field(default_factory=dict, repr=False)
    _logits: dict = field(default_factory=dict, repr=False)

    @property
    def columns(self) -> dict[str, Any]:
        """Columns of its rows that say which network it is."""
        net = self.net
        return {"model": net.name, "weights": net.weights, "trained": net.trained}

    @property
    def labels(self) -> np.ndarray:
        """Labels of the evaluation images; what fp32 sees where nobody labelled them."""
        return self.logits().argmax(1) if self.seen.labels is None else self.seen.labels

    def quantized(self, config: rq.QConfig | None) -> tvm.IRModule:
        """The network quantized as a config says; in fp32 for None."""
        if config is None:
            return self.module
        if config not in self._modules:
            self._modules[config] = rq.quantize(
                self.module, config, calibration=self.batches, target=self.settings["target"]
            )
        return self._modules[config]

    def library(self, config: rq.QConfig | None, schedule: str = AUTO) -> rq.Library:
        """The network compiled at batch 1, once for each config and schedule."""
        key = config, schedule
        if key not in self._libraries:
            # What is compiled to be judged alone is not asked for a second time.
            self._libraries[key] = rq.compile(
                self.quantized(config),
                schedule=schedule,
                batch=1,
                cache=schedule != PLAIN,
                **self.settings,
            )
        return self._libraries[key]

    def logits(self, config: rq.QConfig | None = None, schedule: str = AUTO) -> np.ndarray:
        """Logits of the evaluation images, (n, classes), computed once."""
        key = config, schedule
        if key not in self._logits:
            self._logits[key] = measure.predict(self.library(config, schedule), self.seen.x)
        return self._logits[key]


def subject(
    name: str,
    calibration: int,
    images: int,
    seed: int,
    settings: Mapping[str, Any],
    weights: str | None = None,
) -> Subject:
    """Load a network, its calibration images and its evaluation images.

    Parameters
    ----------
    name : str
        A network of the zoo.
    calibration, images : int
        Images to calibrate on and, at most, to evaluate on.
    seed : int
        Of the choice of images.
    settings : mapping
        Further arguments of `relaxquant.compile`.
    weights : str, optional
        Path to a state dict.
    """
    net = zoo.load_model(name, weights=weights or None)
    module = rq.frontends.from_torch(net.model, net.example_input(2, seed), dynamic_batch=True)
    batches = list(zoo.calibration_images(net, calibration, seed).batches(CALIBRATION_BATCH))
    return Subject(net, module, batches, zoo.evaluation_images(net, images, seed), settings)
