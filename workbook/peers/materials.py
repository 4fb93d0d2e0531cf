"""What all frameworks share: one network's weights, images and reference outputs, as files.

They lie in the zoo's cache folder, under a hash of weights and images: another bench of the same
network finds them, and the quantized models made of them, again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from workbook.files import replacing

# The study calibrates on 100 images; the zoo's samples are fewer, and say so.
CALIBRATION = 100
IMAGES = 100
_BATCH = 10


@dataclass(frozen=True)
class Materials:
    """One network's files.

    Attributes
    ----------
    folder : str
        Holds ``calibration.npy`` and ``images.npy`` (float32 NCHW, no image in both),
        ``expected.npy`` (PyTorch's fp32 logits of the images) and, where the package onnx is
        installed, ``network.onnx`` with a symbolic batch.
    weights : str
        Where the weights come from.
    trained : bool
    calibrated_on, seen : str
        How many images, and whose.
    """

    folder: str
    weights: str
    trained: bool
    calibrated_on: str
    seen: str

    @classmethod
    def loads(cls, text: str) -> Materials:
        """The inverse of `dumps`."""
        return cls(**json.loads(text))

    def dumps(self) -> str:
        """JSON on one line."""
        return json.dumps(asdict(self))


def make(model: str, weights: str = "", seed: int = 0) -> Materials:
    """Write what is missing and return where it lies; imports torch.

    Parameters
    ----------
    model, weights : str
        As for `relaxquant.zoo.load_model`; empty weights: the provider chain decides.
    seed : int
        Of the choice of images.
    """
    from relaxquant import zoo
    from relaxquant.zoo.cache import cache_dir

    net = zoo.load_model(model, weights=weights or None)
    calibration = zoo.calibration_images(net, CALIBRATION, seed)
    images = zoo.evaluation_images(net, IMAGES, seed)
    key = _hash(net.model, calibration.x, images.x)
    folder = cache_dir() / "bench" / f"{model}-{key}"
    _save(folder / "calibration.npy", lambda: calibration.x)
    _save(folder / "images.npy", lambda: images.x)
    _save(folder / "expected.npy", lambda: _logits(net.model, images.x))
    if find_spec("onnx"):
        _export(net, folder / "network.onnx")
    return Materials(
        str(folder),
        net.weights,
        net.trained,
        f"{len(calibration)} images, {calibration.source}",
        f"{len(images)} images, {images.source}",
    )


def _hash(model, *arrays: np.ndarray) -> str:
    import torch

    digest = hashlib.sha256(torch.__version__.encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _save(path: Path, values) -> None:
    if not path.exists():
        with replacing(path) as staged:
            np.save(staged, values())


def _logits(model, images: np.ndarray) -> np.ndarray:
    import torch

    with torch.inference_mode():
        parts = [model(torch.from_numpy(x)) for x in _pieces(images)]
    return torch.cat(parts).numpy()


def _pieces(images: np.ndarray):
    return [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]


def _export(net, path: Path) -> None:
    """Export by tracing: opset 17 keeps every operator in the form that all quantizers know."""
    import warnings

    import torch

    if path.exists():
        return
    with warnings.catch_warnings(), replacing(path) as staged:
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.model,
            (net.example_input(1),),
            str(staged),
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        )
