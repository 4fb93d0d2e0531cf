"""Registry packages: downloaded, checked, published whole or not at all."""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from relaxquant.zoo import ZooError, fetch
from relaxquant.zoo.errors import FetchError
from relaxquant.zoo.manifest import Package
from relaxquant.zoo.trail import Trail

MEMBERS = {"pkg/a.bin": b"first" * 1000, "pkg/deep/b.bin": b"second" * 1000, "pkg/extra": b"x"}
PINNED = {k: v for k, v in MEMBERS.items() if k != "pkg/extra"}

# conftest replaces both so that no test reaches a registry by accident.
REAL_RUN = fetch._run
REAL_DOWNLOAD = fetch.download_archive


@pytest.fixture
def trail() -> Trail:
    return Trail("test")


@pytest.mark.parametrize("registry", ["pypi", "npm"])
def test_files_are_taken_out_once_and_then_come_from_the_cache(serve, trail, registry):
    package = serve("pack", MEMBERS, PINNED, registry)
    files = fetch.package_files(package, trail, offline=False)
    assert {m: p.read_bytes() for m, p in files.items()} == PINNED
    assert fetch.package_files(package, trail, offline=True) == files
    assert serve.downloads == ["pack"]


def test_nothing_but_the_pinned_files_is_left_in_the_cache(serve, trail, empty_cache):
    fetch.package_files(serve("pack", MEMBERS, PINNED), trail, offline=False)
    left = {str(p.relative_to(empty_cache)) for p in empty_cache.rglob("*") if p.is_file()}
    assert left == {f"packages/pack-1.0/{member}" for member in PINNED}


def test_other_content_is_refused_and_not_published(serve, trail, empty_cache):
    package = serve("pack", MEMBERS | {"pkg/deep/b.bin": b"evil"}, PINNED)
    with pytest.raises(FetchError, match=r"SHA-256 of pkg/deep/b\.bin differs"):
        fetch.package_files(package, trail, offline=False)
    assert not [p for p in empty_cache.rglob("*") if p.is_file()]


@pytest.mark.parametrize("registry", ["pypi", "npm"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_archive_is_one_clear_error(serve, trail, registry, kept):
    package = serve("pack", MEMBERS, PINNED, registry)
    archive = serve.archives["pack"]
    content = archive.read_bytes()
    archive.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(FetchError, match=r"truncated or damaged|lacks"):
        fetch.package_files(package, trail, offline=False)


def test_an_archive_without_a_pinned_file_is_refused(serve, trail):
    package = serve("pack", {"pkg/a.bin": MEMBERS["pkg/a.bin"]}, PINNED)
    with pytest.raises(FetchError, match=r"archive lacks pkg/deep/b\.bin"):
        fetch.package_files(package, trail, offline=False)


def test_a_damaged_cached_file_is_noticed_and_fetched_again(serve, trail, caplog):
    package = serve("pack", MEMBERS, PINNED)
    path = fetch.package_files(package, trail, offline=False)["pkg/a.bin"]
    path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING, "relaxquant.zoo"):
        assert fetch.cached_files(package, trail) is None
    assert "damaged" in caplog.text
    with pytest.raises(FetchError, match="offline=True"):
        fetch.package_files(package, trail, offline=True)
    assert (
        fetch.package_files(package, trail, offline=False)["pkg/a.bin"].read_bytes()
        == (PINNED["pkg/a.bin"])
    )


def test_an_interrupted_download_leaves_nothing_behind(serve, trail, empty_cache, monkeypatch):
    package = serve("pack", MEMBERS, PINNED)

    def interrupted(package: Package, folder):
        (folder / "half.whl").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fetch, "download_archive", interrupted)
        fetch.package_files(package, trail, offline=False)
    assert list(empty_cache.iterdir()) == []
    assert fetch.package_files(package, trail, offline=False)


def test_a_failed_registry_is_not_asked_again_at_once(serve, trail, monkeypatch):
    package = serve("pack", {}, PINNED)
    for _ in range(2):
        with pytest.raises(FetchError, match="lacks"):
            fetch.package_files(package, trail, offline=False)
    assert serve.downloads == ["pack"]
    monkeypatch.setattr(fetch, "RETRY_AFTER_S", 0)
    with pytest.raises(FetchError, match="lacks"):
        fetch.package_files(package, trail, offline=False)
    assert serve.downloads == ["pack", "pack"]


def test_a_machine_without_npm_is_told_so(monkeypatch, trail):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    package = Package("pack", "1.0", "npm", "0" * 64, {"x": "0" * 64})
    with pytest.raises(FetchError, match="npm is not installed"):
        fetch.package_files(package, trail, offline=False)


def test_a_cache_folder_that_cannot_be_written_is_one_clear_error(
    serve, trail, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RELAXQUANT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ZooError, match=r"cannot be written.*RELAXQUANT_CACHE"):
        fetch.package_files(serve("pack", MEMBERS, PINNED), trail, offline=False)


def test_the_clients_error_line_is_shown(tmp_path):
    package = Package("pack", "1.0", "pypi", "0" * 64, {})
    talk = "import sys; print('WARNING: noise'); print('ERROR: no such thing'); sys.exit(3)"
    with pytest.raises(FetchError, match="download failed: ERROR: no such thing"):
        REAL_RUN([sys.executable, "-c", talk], tmp_path, package)
    with pytest.raises(FetchError, match="exit code 3"):
        REAL_RUN([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, package)
    with pytest.raises(FetchError, match="does not start"):
        REAL_RUN([str(tmp_path / "absent")], tmp_path, package)


def test_a_client_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "DOWNLOAD_LIMIT_S", 0.3)
    package = Package("pack", "1.0", "pypi", "0" * 64, {})
    with pytest.raises(FetchError, match="no end after"):
        REAL_RUN([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, package)


@pytest.fixture
def shelf(serve, monkeypatch, tmp_path) -> Package:
    """A real wheel in a local folder that the real pip finds, and no index."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("this Python has no pip")
    info = "relaxquant_fake-1.0.dist-info"
    meta = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: relaxquant-fake\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    package = serve("relaxquant-fake", MEMBERS | meta, PINNED)
    wheel = tmp_path / "shelf" / "relaxquant_fake-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    shutil.copy(serve.archives["relaxquant-fake"], wheel)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setattr(fetch, "download_archive", REAL_DOWNLOAD)
    monkeypatch.setattr(fetch, "_run", REAL_RUN)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return replace(package, archive_sha256=digest, pip_args=("--only-binary", ":all:"))


def test_pip_itself_delivers_and_installs_nothing(shelf, trail):
    files = fetch.package_files(shelf, trail, offline=False)
    assert {m: p.read_bytes() for m, p in files.items()} == PINNED
    shown = subprocess.run(
        [sys.executable, "-m", "pip", "show", "relaxquant-fake"], capture_output=True
    )
    assert shown.returncode != 0


def test_pip_refuses_an_archive_with_another_hash(shelf, trail):
    with pytest.raises(FetchError, match="DO NOT MATCH THE HASHES"):
        fetch.package_files(replace(shelf, archive_sha256="0" * 64), trail, offline=False)
