"""Download one file over HTTP: atomic, and quick to give up where there is no network."""

from __future__ import annotations

import hashlib
import threading
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from .cache import publish, staging
from .errors import FetchError

CONNECT_LIMIT_S = 3.0
STALL_LIMIT_S = 30.0


def probe(url: str, limit_s: float = CONNECT_LIMIT_S) -> str | None:
    """Return None if `url` answers a HEAD request within `limit_s` seconds, else the reason.

    The request runs in a daemon thread because name resolution heeds no socket time-out.
    """
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=limit_s):
                outcome.append(None)
        except (OSError, HTTPException) as error:
            outcome.append(str(getattr(error, "reason", None) or error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(limit_s + 0.5)
    return outcome[0] if outcome else f"no answer within {limit_s:g} s"


def download(url: str, target: Path, sha256_prefix: str) -> Path:
    """Download `url` to `target`, which appears whole and checked or not at all.

    Parameters
    ----------
    sha256_prefix : str
        First hex digits of the expected SHA-256 (torchvision puts eight in the file name).

    Raises
    ------
    FetchError
        If there is no answer, the transfer breaks, or the content's SHA-256 differs.
    """
    reason = probe(url)
    if reason is not None:
        raise FetchError(f"{target.name}: no network to download it ({reason})")
    with staging() as folder:
        part = folder / "part"
        digest = hashlib.sha256()
        try:
            with urllib.request.urlopen(url, timeout=STALL_LIMIT_S) as answer, part.open("wb") as f:
                while chunk := answer.read(1 << 20):
                    digest.update(chunk)
                    f.write(chunk)
        except (OSError, HTTPException) as error:
            raise FetchError(f"{target.name}: download broke off: {error}") from error
        if not digest.hexdigest().startswith(sha256_prefix):
            raise FetchError(f"{target.name}: SHA-256 differs from the published one; not used")
        return publish(part, target)
