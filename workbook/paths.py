"""Where things lie: the checkout, its notebooks, its outputs, the published figures."""

from __future__ import annotations

import os
from pathlib import Path

NOTEBOOKS_VARIABLE = "WORKBOOK_NOTEBOOKS"
RUN_VARIABLE = "WORKBOOK_RUN_DIR"
NOTEBOOK_VARIABLE = "WORKBOOK_NOTEBOOK"


def root() -> Path:
    """Return the checkout this package lies in, or the current folder where it lies in none."""
    here = Path(__file__).resolve().parents[1]
    return here if (here / "pyproject.toml").is_file() else Path.cwd()


def notebooks_dir() -> Path:
    """Return the notebooks' folder: ``WORKBOOK_NOTEBOOKS``, or ``notebooks/`` in the checkout."""
    chosen = os.environ.get(NOTEBOOKS_VARIABLE)
    return Path(chosen) if chosen else root() / "notebooks"


def outputs_dir() -> Path:
    """Return the folder that holds one folder a run."""
    return root() / "outputs"


def published_dir() -> Path:
    """Return the folder of the published figures, one CSV a table."""
    return root() / "data" / "published"


def interactive_dir() -> Path:
    """Return the run folder of a notebook that no runner started (JupyterLab, plain papermill)."""
    return outputs_dir() / "interactive"


def relative(path: Path) -> str:
    """Return `path` relative to the current folder where it lies below it, else as it is."""
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)


def without_folders(text: str) -> str:
    """Shorten this checkout's and the user's folder in `text`, so that results can be sent.

    Tracebacks and warnings name files by their absolute path, which says nothing to a reader of
    the report and tells where its writer lives.
    """
    for folder, short in ((str(root()) + os.sep, ""), (str(Path.home()) + os.sep, "~/")):
        if len(folder) > 1:
            text = text.replace(folder, short)
    return text
