"""JupyterLab as `make lab` starts it, in a copy of the checkout, and a notebook open in it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import nbformat

from tests.workbook.browser import CTRL, Tab
from workbook import paths

ROOMS = ("relaxquant", "workbook", "notebooks", "data", "env")
FILES = ("helpers.py", "Makefile", "pyproject.toml")
SECONDS = 60
RUN_SECONDS = 300  # of all cells, on a machine with other things to do

_EDITOR = "document.querySelector('.jp-CodeCell .cm-content')"
_PROMPTS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')]"
_WAITING = f"{_PROMPTS}.some(prompt => prompt.textContent == '[*]:')"
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
            ["make", "lab", *here, "ARGS=--no-browser --port=0"],
            cwd=checkout, env=environment, stdout=out, stderr=out, start_new_session=True,
        ) as process,
    ):  # fmt: skip
        try:
            yield _address(process, said)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def _address(process: subprocess.Popen, said: Path) -> str:
    end = time.monotonic() + SECONDS
    while not (found := re.search(r"http://127\.0\.0\.1:\S+", said.read_text())):
        assert process.poll() is None and time.monotonic() < end, said.read_text()
        time.sleep(0.2)
    return found[0]


class Notebook:
    """A notebook of the checkout, open in JupyterLab, used by mouse and keyboard."""

    def __init__(self, tab: Tab, address: str, file: Path) -> None:
        self.tab = tab
        self.file = file
        place, _, token = address.partition("?")
        tab.go(f"{place}/{quote(file.name)}?{token}&reset")  # else what was open comes back
        self._focus()
        tab.until(f"{_KERNEL}.includes('| Idle')")

    def _focus(self) -> None:
        """Click into the first code cell; while the notebook is being laid out, clicks are lost."""
        end = time.monotonic() + SECONDS
        while not self.tab.value(f"!!{_EDITOR} && document.activeElement == {_EDITOR}"):
            assert time.monotonic() < end, "the first code cell takes no focus"
            self.tab.click(_EDITOR)
            time.sleep(0.3)

    def set_parameters(self, text: str) -> None:
        """Write the first code cell anew."""
        self._focus()
        self.tab.write(text)

    def run_all(self) -> None:
        """Choose *Run All Cells* in the menu, and wait until none is left to run."""
        self.tab.click(_MENU)
        self.tab.click(_RUN_ALL)
        self.tab.until(_WAITING)
        self.tab.until(f"!{_WAITING}", RUN_SECONDS)

    def saved(self) -> list[nbformat.NotebookNode]:
        """Save, and return the code cells as the file has them."""
        before = self.file.stat().st_mtime_ns
        self.tab.press("s", CTRL)
        end = time.monotonic() + SECONDS
        while self.file.stat().st_mtime_ns == before:
            assert time.monotonic() < end, f"{self.file.name} was not saved"
            time.sleep(0.2)
        node = nbformat.read(self.file, as_version=4)
        return [cell for cell in node.cells if cell.cell_type == "code"]
