"""What a notebook says beside its rows: headlines, figures, tables. One JSON file a notebook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workbook.files import write_json

Notes = dict[str, list[dict[str, Any]]]
KINDS = ("headlines", "figures", "tables")


def empty() -> Notes:
    """Return notes of a notebook that has said nothing yet."""
    return {kind: [] for kind in KINDS}


def read(path: Path) -> Notes:
    """Return the notes at `path`; empty ones where the notebook never got so far."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else empty()


def put(path: Path, kind: str, name: str, entry: dict[str, Any]) -> None:
    """Keep `entry` under `kind` and `name`, in the place of an earlier one of the same name.

    In JupyterLab a cell is run many times; the last time is the one that counts.
    """
    notes = read(path)
    entries = [old for old in notes[kind] if old["name"] != name]
    notes[kind] = [*entries, {"name": name, **entry}]
    write_json(path, notes)


def start(path: Path) -> None:
    """Begin a notebook's notes anew."""
    write_json(path, empty())
