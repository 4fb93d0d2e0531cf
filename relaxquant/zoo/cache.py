"""The cache folder as the zoo uses it: what is downloaded is checked each time it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..cachefolder import cache_dir, publish, sha256_of, staging_folder
from .errors import ZooError

__all__ = ["cache_dir", "publish", "sha256_of", "staging"]


@contextmanager
def staging() -> Iterator[Path]:
    """Yield a temporary folder inside the cache folder, removed at the end.

    Raises
    ------
    ZooError
        If the cache folder cannot be written.
    """
    try:
        folder = staging_folder()
    except OSError as error:
        raise ZooError(
            f"cache folder {cache_dir()} cannot be written ({error.strerror}); "
            "set RELAXQUANT_CACHE to a folder that can"
        ) from error
    with folder as name:
        yield Path(name)
