"""A quantized TFLite model in all the ways it is run here, and what each answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import relaxquant as rq
from relaxquant import zoo
from workbook.litert import LiteRT

if TYPE_CHECKING:
    import tvm

    from relaxquant.zoo.pool import Images
    from relaxquant.zoo.tflite import TFLiteModel
    from workbook.context import Run

# TensorFlow's own file names of models that the study ran.
STUDIED = {
    "mobilenet_v1_1.0_224_quant": "mobilenet_v1",
    "mobilenet_v2_1.0_224_quant": "mobilenet_v2",
    **{f"inception_v{i}{end}": f"inception_v{i}" for i in range(1, 5) for end in ("", "_quant")},
}
INT8, EXACT, FLOAT = "our int8", "our int8, tflite rounding", "our fp32"
SYMMETRIC, BY_CHANNEL = "our int8, symmetric", "our int8, symmetric by channel"
LITERT, REFERENCE = "LiteRT XNNPACK", "LiteRT reference"
OURS = (INT8, EXACT, FLOAT, SYMMETRIC, BY_CHANNEL)
RUN_AS = {
    INT8: {"precision": "w8a8", "executor": "graph", "schedule": "auto"},
    EXACT: {"precision": "w8a8, tflite rounding", "executor": "graph", "schedule": "auto"},
    FLOAT: {"precision": "fp32", "executor": "graph", "schedule": "auto"},
    SYMMETRIC: {"precision": "w8a8, symmetric", "executor": "graph", "schedule": "auto"},
    BY_CHANNEL: {
        "precision": "w8a8, symmetric by channel",
        "executor": "graph",
        "schedule": "auto",
    },
    LITERT: {"precision": "w8a8", "executor": "litert xnnpack"},
    REFERENCE: {"precision": "w8a8", "executor": "litert reference"},
}


@dataclass
class Subject:
    """A model, compiled in all the ways there are, and the images it is shown.

    Attributes
    ----------
    model : relaxquant.zoo.TFLiteModel
    module : tvm.IRModule
        As imported.
    libraries : dict
        Name, one of `OURS` -> library.
    images : relaxquant.zoo.Images
    """

    model: TFLiteModel
    module: tvm.IRModule
    libraries: dict[str, rq.Library]
    images: Images
    _answers: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)

    @cached_property
    def inputs(self) -> list[np.ndarray]:
        """The images as the model takes them, uint8 (1, H, W, 3) each."""
        pixels = self.model.pixels(self.images.x)
        return [np.ascontiguousarray(pixels[i : i + 1]) for i in range(len(pixels))]

    def columns(self, name: str) -> dict[str, Any]:
        """Columns of a way's result rows."""
        common = {"model": self.model.name, "weights": self.model.weights, "trained": True}
        return common | {"batch": 1} | RUN_AS[name]

    def answers(self, name: str, count: int | None = None) -> np.ndarray:
        """What one way of running it gives for the images, computed once.

        Parameters
        ----------
        name : str
            Key of `RUN_AS`.
        count : int, optional
            The first so many images only.

        Returns
        -------
        numpy.ndarray
            The model's own integers, shape (images, classes), without a background class.
        """
        count = min(count or len(self.inputs), len(self.inputs))
        if (name, count) not in self._answers:
            run = self.libraries.get(name) or LiteRT(self.model.path, name == REFERENCE)
            rows = [np.asarray(run(x)).reshape(-1).copy() for x in self.inputs[:count]]
            self._answers[name, count] = np.stack(rows)[:, self.model.first_class :]
        return self._answers[name, count]


def subjects(
    names: Sequence[str | Path], images: int, seed: int, settings: dict[str, Any]
) -> list[Subject]:
    """Load and compile models.

    Parameters
    ----------
    names : sequence of str or Path
        As for `relaxquant.zoo.load_tflite`.
    images : int
        Evaluation images at most.
    seed : int
        Of their choice.
    settings : dict
        Further arguments of `relaxquant.compile`.
    """
    return [_subject(zoo.load_tflite(name), images, seed, settings) for name in names]


def described(run: Run, subject: Subject) -> dict[str, Any]:
    """What a model is and what it multiplies: a line of the table, and a row ``integer_macs``.

    Parameters
    ----------
    run : workbook.context.Run
        Where the row goes.
    subject : Subject
        The model.
    """
    share = 100 * rq.proof(subject.libraries[INT8]).integer_share
    run.record(metric="integer_macs", value=share, unit="%", **subject.columns(INT8))
    kernels = subject.libraries[INT8].kernels
    left = sum(record.precision == "fp32" for record in kernels)
    return {
        "model": subject.model.name,
        "from": subject.model.weights,
        "input": "x".join(map(str, subject.model.input_shape)),
        "GMAC": sum(record.macs for record in kernels) / 1e9,
        "in integers (%)": share,
        "kernels": len(kernels),
        "in float": left,
    }


def _subject(model: TFLiteModel, images: int, seed: int, settings: dict[str, Any]) -> Subject:
    module = rq.frontends.from_tflite(model.path)
    plan = {
        INT8: (module, {}),
        EXACT: (module, {"requantize": "tflite"}),
        FLOAT: (rq.frontends.without_quantization(module), {}),
        SYMMETRIC: (rq.frontends.forced_symmetric(module), {}),
        BY_CHANNEL: (rq.frontends.forced_symmetric(module, per_channel=True), {}),
    }
    libraries = {name: rq.compile(m, **settings, **more) for name, (m, more) in plan.items()}
    return Subject(model, module, libraries, zoo.evaluation_images(model, images, seed))
