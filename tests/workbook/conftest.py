"""Toy notebooks, written with nbformat and run for real."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from rich.console import Console

from workbook import fingerprint, paths, runner

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
PARAMETERS = """\
model = "toy"  # the network
batch = 1  # images at once
threads = 1
profile = "quick"
"""


def write_notebook(folder: Path, name: str, *cells: str, parameters: str = PARAMETERS, needs=()):
    """Write ``NAME.ipynb``: a heading, the tagged parameters, the given code cells."""
    node = nbformat.v4.new_notebook(metadata={"kernelspec": KERNEL})
    if needs:
        node.metadata["workbook"] = {"needs": list(needs)}
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    node.cells = [nbformat.v4.new_markdown_cell(f"# Question of {name}\n\nText."), tagged]
    node.cells += [nbformat.v4.new_code_cell(source) for source in cells]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(node, path)
    return path


@pytest.fixture(scope="session")
def notebook() -> Callable[..., Path]:
    """Return the writer of toy notebooks."""
    return write_notebook


@pytest.fixture(autouse=True)
def _own_outputs(tmp_path, monkeypatch):
    """Keep tests out of the checkout's outputs, and out of a surrounding run."""
    monkeypatch.setattr(paths, "outputs_dir", lambda: tmp_path / "outputs")
    monkeypatch.delenv(paths.RUN_VARIABLE, raising=False)
    monkeypatch.delenv(paths.NOTEBOOK_VARIABLE, raising=False)


@pytest.fixture(scope="session")
def start_run() -> Callable[..., SimpleNamespace]:
    """Return a function that runs notebooks of a folder and returns outcome and terminal text."""

    def start(folder: Path, *words: str, code: str = "code", **request) -> SimpleNamespace:
        screen = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(paths.NOTEBOOKS_VARIABLE, str(folder))
            # Someone may be editing the library while its tests run.
            patch.setattr(fingerprint, "of_code", lambda root: code)
            asked = runner.Request(words=words, **request)
            outcome = runner.run(asked, Console(file=screen, width=200))
        return SimpleNamespace(outcome=outcome, text=screen.getvalue())

    return start
