"""The cache folder: downloads and compiled networks, each file whole or not there at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


def cache_dir() -> Path:
    """Return the cache folder, ``$RELAXQUANT_CACHE`` or ``~/.cache/relaxquant``.

    It is not created here: whoever only looks writes nothing.
    """
    named = os.environ.get("RELAXQUANT_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "relaxquant"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def staging_folder() -> tempfile.TemporaryDirectory:
    """Make a temporary folder inside the cache folder, for a ``with`` statement.

    Being on the same file system as the cache, a finished file moves out of it in one atomic
    rename: whoever reads the cache sees a whole file or none.

    Raises
    ------
    OSError
        If the cache folder cannot be written.
    """
    root = cache_dir()
    root.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=".partial-", dir=root)


def publish(staged: Path, target: Path) -> Path:
    """Move a finished file from a staging folder to its place, replacing what is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(staged, target)
    return target
