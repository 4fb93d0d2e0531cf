"""JupyterLab as `make lab` starts it, in a copy of the checkout, and a notebook open in it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import nbformat

from tests.waiting import until
from tests.workbook.browser import CTRL, Tab
from workbook import paths

ROOMS = ("relaxquant", "workbook", "notebooks", "data", "env")
FILES = ("helpers.py", "Makefile", "pyproject.toml")
RUN_SECONDS = 1200  # of all cells, on a slow machine with other things to do

_EDITOR = "document.querySelector('.jp-CodeCell .cm-content')"
# Of the notebook itself: in the page are only those cells that are near what is in view.
_MODEL = "jupyterapp.shell.currentWidget.context.model"
_CODE = f"[...{_MODEL}.cells].filter(cell => cell.type == 'code')"
_FAILED = f"{_CODE}.some(cell => cell.outputs.toJSON().some(o => o.output_type == 'error'))"
_ENDED = f"({_CODE}.every(cell => cell.executionCount) || {_FAILED})"
_MENU = "[...document.querySelectorAll('.lm-MenuBar-item')].find(e => e.textContent == 'Run')"
_RUN_ALL = "document.querySelector('.lm-Menu-item[data-command=\"runmenu:run-all\"]')"
_KERNEL = "document.querySelector('#jp-main-statusbar').innerText"


def copy(folder: Path) -> Path:
    """Copy what a user has of the checkout, so that nothing of it is changed by being used."""
    made = folder / "checkout"
    made.mkdir()
    for room in ROOMS:
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(paths.root() / room, made / room, ignore=ignored)
    for file in FILES:
        shutil.copy(paths.root() / file, made)
    return made


@contextlib.contextmanager
def started(checkout: Path, home: Path) -> Iterator[str]:
    """Run `make lab` there as one who never ran Jupyter; yield the address it prints."""
    home.mkdir()
    own = {"JUPYTER_CONFIG_DIR": home / "config", "JUPYTER_RUNTIME_DIR": home / "runtime"}
    environment = {**os.environ, **own, "PYTHONPATH": str(checkout)}
    environment.pop("RELAXQUANT_COMPILE_CACHE", None)  # that of the tests; a user has it on
    # The environment is that of the tests: there is none in the copy, and none is to be made.
    here = ["-o", ".venv/.stamp", f"BIN={Path(sys.executable).parent}"]
    said = home / "said.txt"
    with (
        said.open("w") as out,
        subprocess.Popen(
            ["make", "lab", *here, "ARGS=--no-browser --port=0 --expose-app-in-browser"],
            cwd=checkout, env=environment, stdout=out, stderr=out, start_new_session=True,
        ) as process,
    ):  # fmt: skip
        try:
            yield until(lambda: _address(said), "JupyterLab's address", process, said)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def _address(said: Path) -> str | None:
    found = re.search(r"http://127\.0\.0\.1:\S+(?=\s)", said.read_text())
    return found and found[0]


class Notebook:
    """A notebook of the checkout, open in JupyterLab, used by mouse and keyboard."""

    def __init__(self, tab: Tab, address: str, file: Path) -> None:
        self.tab = tab
        self.file = file
        place, _, token = address.partition("?")
        tab.go(f"{place}/{quote(file.name)}?{token}&reset")  # else what was open comes back
        tab.focus(_EDITOR)
        tab.until(f"{_KERNEL}.includes('| Idle')")

    def set_parameters(self, text: str) -> None:
        """Write the first code cell anew."""
        self.tab.focus(_EDITOR)
        self.tab.write(text)

    def run_all(self) -> None:
        """Choose *Run All Cells* in the menu, and wait until all have run, or one has failed."""
        self.tab.click(_MENU)
        self.tab.click(_RUN_ALL)
        self.tab.until(_ENDED, RUN_SECONDS)

    def saved(self) -> list[nbformat.NotebookNode]:
        """Save, and return the code cells as the file has them."""
        self.tab.press("s", CTRL)
        self.tab.until(f"!{_MODEL}.dirty")
        node = nbformat.read(self.file, as_version=4)
        return [cell for cell in node.cells if cell.cell_type == "code"]
