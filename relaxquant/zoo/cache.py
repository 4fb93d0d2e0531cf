"""The cache folder: what is downloaded lies here, checked by SHA-256 each time it is used."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ZooError


def cache_dir() -> Path:
    """Return the cache folder, ``$RELAXQUANT_CACHE`` or ``~/.cache/relaxquant``.

    It is not created here: a chain that only looks writes nothing.
    """
    named = os.environ.get("RELAXQUANT_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "relaxquant"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def staging() -> Iterator[Path]:
    """Yield a temporary folder inside the cache folder, removed at the end.

    Being on the same file system as the cache, a finished file moves out of it in one atomic
    rename: whoever reads the cache sees a whole file or none.

    Raises
    ------
    ZooError
        If the cache folder cannot be written.
    """
    root = cache_dir()
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".partial-", dir=root)
    except OSError as error:
        raise ZooError(
            f"cache folder {root} cannot be written ({error.strerror}); "
            "set RELAXQUANT_CACHE to a folder that can"
        ) from error
    with folder as name:
        yield Path(name)


def publish(staged: Path, target: Path) -> Path:
    """Move a finished file from `staging` to its place in the cache, replacing what is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(staged, target)
    return target
