"""A page as PDF, by a headless Chromium where the machine has one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from workbook.errors import WorkbookError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SECONDS = 120
ABSENT = "no Chromium or Chrome is on the PATH (Debian: apt install chromium)"


def find() -> str | None:
    """Return the path of a Chromium or Chrome on the ``PATH``; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def options(profile: Path) -> list[str]:
    """Return the flags of a headless start that leaves the user's own profile alone.

    Parameters
    ----------
    profile : pathlib.Path
        An empty folder for the browser's files.
    """
    # Chromium's sandbox refuses to start for root, as in most containers.
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    quiet = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    quiet += ["--disable-component-update", "--disable-quic"]
    return ["--headless=new", f"--user-data-dir={profile}", *quiet, *root]


def print_pdf(page: Path, pdf: Path) -> None:
    """Print an HTML file.

    Parameters
    ----------
    page : pathlib.Path
        What to print, as its print style sheet says.
    pdf : pathlib.Path
        Where to; an earlier file is replaced.

    Raises
    ------
    WorkbookError
        Where there is no Chromium, or it prints nothing.
    """
    browser = find()
    if browser is None:
        raise WorkbookError(ABSENT)
    with tempfile.TemporaryDirectory(prefix="workbook-", ignore_cleanup_errors=True) as scratch:
        printed = Path(scratch) / "page.pdf"
        asked = ["--no-pdf-header-footer", f"--print-to-pdf={printed}", page.resolve().as_uri()]
        try:
            done = subprocess.run(
                [browser, *options(Path(scratch)), *asked],
                capture_output=True, text=True, timeout=SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise WorkbookError(f"{browser} did not print within {SECONDS} s") from None
        if not printed.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise WorkbookError(f"{browser} printed nothing: {last}")
        shutil.move(printed, pdf)
