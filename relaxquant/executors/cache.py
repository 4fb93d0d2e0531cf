"""Compiled networks on disk, by content: the second equal ``rq.compile`` only loads a file.

An entry is one shared library, ``compiled/<digest of what went in>.<SHA-256 of the file>.so``. The
second half tells a damaged file before the dynamic linker maps it. Entries are only ever written
whole and renamed into place, so processes need no lock; used ones are touched, and the
least recently used go when the folder outgrows `LIMIT`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ..cachefolder import cache_dir, publish, sha256_of, staging_folder

LIMIT = 2 * 1024**3  # bytes of all entries together
VARIABLE = "RELAXQUANT_COMPILE_CACHE"  # "0" switches the cache off
log = logging.getLogger("relaxquant")


def enabled() -> bool:
    """Whether ``$RELAXQUANT_COMPILE_CACHE`` leaves the cache on."""
    return os.environ.get(VARIABLE, "1") != "0"


def folder() -> Path:
    """Where the entries lie."""
    return cache_dir() / "compiled"


def find(key: str) -> Path | None:
    """A whole entry for ``key``; damaged ones are removed with one line in the log."""
    for path in sorted(folder().glob(f"{key}.*.so")):
        try:
            whole = _is_whole(path)
        except OSError:  # another process has removed it, or it cannot be read
            continue
        if whole:
            with contextlib.suppress(OSError):  # a folder that can only be read serves as well
                os.utime(path)
            return path
        discard(path)
    return None


def discard(path: Path) -> None:
    """Remove an entry that cannot be used."""
    log.warning("the compiled network %s is damaged: it is compiled again", path)
    _remove(path)


def store(key: str, export: Callable[[Path], None]) -> Path | None:
    """Keep what ``export`` writes; None, with one line in the log, where it cannot be kept."""
    try:
        with staging_folder() as name:
            staged = Path(name) / "net.so"
            export(staged)
            path = publish(staged, folder() / f"{key}.{sha256_of(staged)}.so")
    except (OSError, RuntimeError, ValueError) as error:  # no C linker is a RuntimeError
        reason = (str(error).splitlines() or [type(error).__name__])[-1]
        log.warning("compiled networks cannot be kept in %s: %s", folder(), reason)
        return None
    _evict(path)
    return path


def copy(entry: Path, path: Path) -> bool:
    """Copy an entry to ``path``; False, and nothing is written, if it is damaged or was removed."""
    try:
        whole = _is_whole(entry)
    except OSError:
        return False
    if whole:
        shutil.copyfile(entry, path)
    return whole


def _is_whole(entry: Path) -> bool:
    return sha256_of(entry) == entry.name.split(".")[1]


def _evict(newest: Path) -> None:
    """Remove the least recently used entries until all fit; never ``newest``."""
    entries = []
    for path in folder().glob("*.so"):
        try:
            status = path.stat()
        except OSError:
            continue
        entries.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= LIMIT:
            return
        if path != newest:
            _remove(path)
            total -= size


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s cannot be removed: %s", path, error.strerror)
