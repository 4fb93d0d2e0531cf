"""A folder of pictures with an images.csv beside them."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from .errors import ZooError
from .pool import Pool
from .samples import read_picture

# One picture in five calibrates.
_CALIBRATION_SHARE = 5


def folder_pool(folder: Path, purpose: str, classes: int) -> Pool:
    """Return the pictures of `folder` that serve `purpose`.

    ``images.csv`` has the columns ``file`` and ``label`` (0-based; other columns are free); the
    pictures lie beside it or in ``images/``. The SHA-256 of its file name says what a picture is
    for, about one in five for calibration, so the split is the same everywhere and stays when
    pictures are added.

    Raises
    ------
    ZooError
        If the folder, its table, a picture or a label is missing or wrong, or no picture of the
        folder serves `purpose`.
    """
    rows = [row for row in _read_table(folder) if _purpose_of(row["file"]) == purpose]
    if not rows:
        raise ZooError(
            f"image folder {folder} has no picture for {purpose}: about one in "
            f"{_CALIBRATION_SHARE} calibrates and the others evaluate, so give it 20 or more"
        )
    paths = [_find(folder, row["file"]) for row in rows]
    return Pool(
        source=f"folder {folder.name}",
        names=[row["file"] for row in rows],
        labels=_labels(rows, folder, classes),
        read=lambda index: _read(paths[index]),
    )


def _purpose_of(file: str) -> str:
    digest = int.from_bytes(hashlib.sha256(Path(file).name.encode()).digest()[:8], "big")
    return "evaluation" if digest % _CALIBRATION_SHARE else "calibration"


def _read_table(folder: Path) -> list[dict[str, str]]:
    table = folder / "images.csv"
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise ZooError(
            f"image folder {folder} has no readable images.csv ({error.strerror}); "
            "it needs one with the columns file,label"
        ) from error
    if not rows or "file" not in rows[0]:
        raise ZooError(f"{table} needs a header with file,label and at least one row")
    seen: set[str] = set()
    for row in rows:
        name = Path(row["file"]).name
        if name in seen:
            raise ZooError(f"{table} names {row['file']} twice; name each picture once")
        seen.add(name)
    return rows


def _labels(rows: list[dict[str, str]], folder: Path, classes: int) -> np.ndarray | None:
    given = [(row.get("label") or "").strip() for row in rows]
    if not any(given):
        return None
    for row, label in zip(rows, given, strict=True):
        if not label.isdecimal() or int(label) >= classes:
            raise ZooError(
                f"{folder / 'images.csv'}: label {label!r} of {row['file']} is no class from 0 to "
                f"{classes - 1}; label every picture or none"
            )
    return np.array([int(label) for label in given])


def _find(folder: Path, file: str) -> Path:
    for path in (folder / "images" / file, folder / file):
        if path.is_file():
            return path
    raise ZooError(f"{folder / 'images.csv'} names {file}, which is not in {folder} nor in images/")


def _read(path: Path) -> Image.Image:
    try:
        return read_picture(path)
    except (UnidentifiedImageError, OSError) as error:
        raise ZooError(f"{path} is no readable picture: {error}") from error
